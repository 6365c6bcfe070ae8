"""What breaks when transformers moves: each test names what of ours would no longer hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MixtralConfig

from evalharness.compat import transformers as compat
from evalharness.compat import transformers_kinds as kinds
from tests.engines.conftest import tiny

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}


def built(config: Any) -> Any:
    """A random model in float32."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def llama() -> Any:
    return built(LlamaConfig(**SMALL))


@pytest.fixture(scope="module")
def mixtral() -> Any:
    return built(MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2))


@torch.inference_mode()
def logits(model: Any, ids: Tensor, **more: Any) -> Tensor:
    out: Tensor = model(input_ids=ids, **more).logits
    return out


# --- attention: the noise floor's other kernel, the key of the cache, packed requests -------------


def test_the_attention_can_be_read_and_set(llama: Any) -> None:
    """The noise floor computes with another kernel and leaves the model as it was."""
    assert compat.attention_of(llama) == "sdpa"
    assert compat.takes_attention(llama, "eager")
    assert not compat.takes_attention(llama, "no_such_kernel")
    with compat.attention(llama, "eager"):
        assert compat.attention_of(llama) == "eager"
    assert compat.attention_of(llama) == "sdpa"


def test_another_kernel_really_computes(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting it is more than writing it down: sdpa's own function is called, or it is not."""
    calls: list[str] = []
    own = nn.functional.scaled_dot_product_attention

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append("sdpa")
        return own(*args, **kwargs)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", counted)
    ids = torch.arange(5)[None]
    with compat.attention(llama, "eager"):
        logits(llama, ids)
    assert calls == []
    logits(llama, ids)
    assert calls


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_a_mask_of_four_dimensions_is_taken_as_it_is(llama: Any, kernel: str) -> None:
    """Packed branches see their own ancestors only: two continuations in one row."""
    prefix, one, two = [3, 1, 4], [1, 5], [9, 2]
    ids = torch.tensor([[*prefix, *one, *two]])
    allowed = torch.ones(7, 7, dtype=torch.bool).tril()
    allowed[5:, 3:5] = False
    mask = compat.additive_mask(allowed[None, None], torch.float32)
    positions = torch.tensor([[0, 1, 2, 3, 4, 3, 4]])
    with compat.attention(llama, kernel):
        packed = logits(llama, ids, attention_mask=mask, position_ids=positions)
        alone = [logits(llama, torch.tensor([[*prefix, *rest]])) for rest in (one, two)]
    torch.testing.assert_close(packed[0, 3:5], alone[0][0, 3:])
    torch.testing.assert_close(packed[0, 5:], alone[1][0, 3:])


def test_a_prefix_is_fed_once_and_stands_before_every_batch(llama: Any) -> None:
    """Few-shot prompts: batches of any size follow, and none of them is added to the cache."""
    prefix = torch.tensor([[3, 1, 4, 1]])
    cache = compat.prefix_cache(torch.inference_mode()(llama.base_model), prefix)
    for rows in ([[5, 9]], [[2, 6, 5], [3, 5, 8]]):
        ids = torch.tensor(rows)
        size, width = ids.shape
        allowed = torch.ones(width, 4 + width, dtype=torch.bool).tril(4)
        mask = compat.additive_mask(allowed.expand(size, 1, -1, -1), torch.float32)
        positions = torch.arange(4, 4 + width).expand(size, -1)
        found = logits(
            llama,
            ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        whole = logits(llama, torch.cat([prefix.expand(size, -1), ids], 1))
        torch.testing.assert_close(found, whole[:, 4:])


# --- configurations -------------------------------------------------------------------------------


def test_what_is_read_of_a_configuration(llama: Any) -> None:
    """The width of hidden states, the vocabulary, and nothing that forbids packing."""
    assert compat.hidden_size(llama) == 16
    assert compat.hidden_size(nn.Linear(2, 2)) is None
    assert compat.vocabulary_size(llama) == 64
    assert not kinds.is_encoder_decoder(llama)
    assert not kinds.carries_state(llama)
    assert not kinds.has_alibi(llama)
    assert kinds.attention_reach(llama) is None


@pytest.mark.parametrize(
    ("name", "settings"),
    [("MambaConfig", {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1})],
)
def test_a_recurrent_model_says_so(name: str, settings: dict[str, Any]) -> None:
    """Packing would hand one branch's state to the next."""
    assert kinds.carries_state(built(getattr(transformers, name)(**settings)))


def test_a_model_with_alibi_is_known() -> None:
    """A packed mask does not carry its positions."""
    config = transformers.BloomConfig(vocab_size=64, hidden_size=16, n_layer=1, n_head=4)
    assert kinds.has_alibi(built(config))


@pytest.mark.parametrize(
    ("config", "reach"),
    [
        (transformers.MistralConfig(**SMALL, sliding_window=8), 8),
        (transformers.MistralConfig(**SMALL, sliding_window=None), None),
        (transformers.Qwen2Config(**SMALL, sliding_window=8, use_sliding_window=False), None),
        (transformers.Gemma2Config(**SMALL, head_dim=4, sliding_window=8), 8),
    ],
    ids=["mistral", "mistral-full", "qwen2-full", "gemma2"],
)
def test_a_sliding_window_is_known(config: Any, reach: int | None) -> None:
    """A request longer than it may not be packed."""
    assert kinds.attention_reach(built(config)) == reach


def test_settings_are_what_changes_numbers_and_not_where_a_model_was(tmp_path: Path) -> None:
    """Two copies of one model share the cache of hidden states; another model does not."""
    for name in ("a", "b"):
        tiny().save_pretrained(tmp_path / name)
    a, b = (
        compat.settings_of(AutoModelForCausalLM.from_pretrained(tmp_path / n)) for n in ("a", "b")
    )
    assert a == b
    assert a["rms_norm_eps"]
    assert "transformers_version" not in a
    assert a != compat.settings_of(tiny(hidden=32))


# --- modules --------------------------------------------------------------------------------------


def test_gpt2s_linear_layer_is_known_by_its_name() -> None:
    """Its weight is stored the other way round."""
    model = built(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2))
    layer = model.transformer.h[0].attn.c_attn
    assert compat.is_conv1d(layer)
    assert tuple(layer.weight.shape) == (16, 48)
    assert not compat.is_conv1d(nn.Linear(2, 2))


def test_a_mixture_of_experts_has_fused_experts_and_a_router(mixtral: Any) -> None:
    """They are matched as kinds of their own, and routing is read from what the router returns."""
    experts = [m for n, m in mixtral.named_modules() if compat.is_expert_list(n)]
    routers = [m for m in mixtral.modules() if compat.is_router(m)]
    assert [compat.expert_count(m) for m in experts] == [4, 4]
    assert len(routers) == 2
    outs: list[Any] = []
    handle = routers[0].register_forward_hook(lambda m, a, out: outs.append(out))
    logits(mixtral, torch.arange(5)[None])
    handle.remove()
    chosen = compat.chosen_experts(outs[0])
    assert chosen is not None
    assert tuple(chosen.shape) == (5, 2)
    assert int(chosen.max()) < 4
    assert compat.scored_experts(outs[0]) == 4
    assert compat.chosen_experts(torch.zeros(2)) is None is compat.scored_experts(torch.zeros(2))


def test_a_block_takes_and_returns_hidden_states(llama: Any) -> None:
    """Layer errors call blocks again with other hidden states."""
    block = llama.model.layers[1]
    seen: list[Any] = []

    def hook(module: Any, args: Any, kwargs: Any, out: Any) -> None:
        seen.append((args, kwargs, out))

    handle = block.register_forward_hook(hook, with_kwargs=True)
    logits(llama, torch.arange(5)[None], use_cache=False)
    handle.remove()
    ((args, kwargs, out),) = seen
    assert compat.hidden_argument(args, kwargs).shape == (1, 5, 16)
    assert compat.hidden_result(out).shape == (1, 5, 16)
    args, kwargs = compat.with_hidden_argument(args, kwargs, torch.zeros(1, 5, 16))
    with torch.inference_mode():
        assert not compat.hidden_result(block(*args, **kwargs)).any()
    assert compat.with_hidden_argument((), {"hidden_states": 1}, torch.ones(1)) == (
        (),
        {"hidden_states": torch.ones(1)},
    )


def test_an_untied_head_is_saved_with_its_own_weight(tmp_path: Path) -> None:
    """A simulated head would otherwise be replaced by the embedding as it is loaded again."""
    model = tiny(tied=True)
    model.lm_head.weight = nn.Parameter(torch.ones_like(model.lm_head.weight))
    compat.untie_head(model, "lm_head")
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(again.lm_head.weight, again.get_input_embeddings().weight)


# --- loading --------------------------------------------------------------------------------------


def test_a_load_says_what_the_files_lack_and_hold_beside(tmp_path: Path) -> None:
    """Weights that are missing would be random, and nobody would be told."""
    from safetensors.torch import load_file, save_file

    tiny().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["model.extra.weight"] = torch.zeros(2)
    del state["model.norm.weight"]
    state["lm_head.weight"] = torch.zeros(255, 64, dtype=torch.bfloat16)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    found = compat.load_causal_model(tmp_path)
    assert found.missing == ["model.norm.weight"]
    assert found.mismatched == [("lm_head.weight", [255, 64], [256, 64])]
    assert found.unexpected == ["model.extra.weight"]
    assert found.errors == []


def test_a_dense_model_has_no_quantiser() -> None:
    """An adapter is merged into it, and it can be saved."""
    model = tiny()
    assert not compat.is_quantized(model)
    model.config.quantization_config = {"quant_method": "gguf"}
    model.hf_quantizer = object()
    assert compat.is_quantized(model)
    compat.forget_quantizer(model)
    assert not compat.is_quantized(model)
    assert not hasattr(model.config, "quantization_config")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Please pass the argument `trust_remote_code=True`", "code"),
        ("Transformers does not recognize this architecture.", "architecture"),
        ("Unrecognized configuration class <class 'T5Config'>", "task"),
        ("GGUF model with architecture x is not supported yet.", "gguf"),
        ("FlashAttention2 has been toggled on, but it cannot be used", None),
        ('Specified `attn_implementation="x"` is not supported.', "attention"),
        ("We encountered some issues during automatic conversion of the weights.", "conversion"),
        ("something else", None),
    ],
)
def test_the_words_of_errors_are_told_apart(text: str, why: str | None) -> None:
    """Each cause has a remedy of its own; that they still say this, tests/engines shows."""
    expected = "attention" if "FlashAttention" in text else why
    assert compat.why_not_loaded(ValueError(text)) == expected


def test_what_transformers_says_today(tmp_path: Path) -> None:
    """Its own errors, raised by itself, are told apart."""
    tiny().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    text = config.read_text()
    for model_type, why in (("t5", "task"), ("no-such-type", "architecture")):
        config.write_text(text.replace('"model_type": "llama"', f'"model_type": "{model_type}"'))
        with pytest.raises(Exception) as caught:
            compat.load_causal_model(tmp_path)
        assert compat.why_not_loaded(caught.value) == why


def test_a_missing_package_is_told_from_its_class() -> None:
    """Whatever it says."""
    assert compat.why_not_loaded(ImportError("needs it")) == "library"


def test_the_first_error_of_a_quantiser_is_found_in_a_frame() -> None:
    """transformers raises without it."""

    class Info:
        conversion_errors = {"w": "Traceback\nValueError: group size\n"}  # noqa: RUF012

    def load() -> None:
        loading_info = Info()
        raise RuntimeError(type(loading_info).__name__)

    with pytest.raises(RuntimeError) as caught:
        load()
    assert compat.conversion_error(caught.value) == "ValueError: group size"
    assert compat.conversion_error(ValueError("x")) is None
