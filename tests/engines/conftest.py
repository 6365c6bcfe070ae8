"""Tiny random models, saved once for a session; nothing here needs the network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evalharness.compat.silence import quiet
from evalharness.engines.loading import load
from evalharness.errors import EvalHarnessError, InputError
from evalharness.spec.model import ModelSource, ModelSpec

torch.set_num_threads(1)

Make = Callable[..., ModelSpec]
ALL = 106_816  # parameters of the tiny model
IDS = torch.arange(3, 40)[None]
NF4 = {
    "method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
}


def tiny(*, tied: bool = False, hidden: int = 64, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A random Llama of two layers with 256 tokens; every dtype holds the same bfloat16 values."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():  # not .to(dtype): buffers of the rotary embedding stay
        parameter.data = parameter.data.bfloat16().to(dtype)
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=alphabet[0])


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model with its tokenizer; read only."""
    path = tmp_path_factory.mktemp("tiny")
    tiny().save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy of `saved` that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def spec() -> Callable[..., ModelSpec]:
    """Make a model spec of a path; keywords of the source or of the spec."""

    def make(path: Path | str, **options: Any) -> ModelSpec:
        source = {k: options.pop(k) for k in list(options) if k in ModelSource.model_fields}
        return ModelSpec.model_validate(
            {"name": "m", "model": {"path": str(path), "device": "cpu", **source}, **options}
        )

    return make


def write_gguf(path: Path, model: Any, kind: str = "Q4_0") -> None:
    """Write a Llama ``model`` with a byte tokenizer as GGUF; matrices as ``kind``, norms F32."""
    import gguf

    config, state = model.config, model.float().state_dict()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*sorted(pre_tokenizers.ByteLevel.alphabet())[:-1], "ab"])
    writer.add_token_types([1] * 256)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    asked = gguf.GGMLQuantizationType[kind]
    for name, value in state.items():
        array = value.numpy()
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        for letter, count in heads.items():
            if f"{letter}_proj" in name:  # llama.cpp's order of rotary halves
                shape = (count, 2, array.shape[0] // count // 2, array.shape[1])
                array = array.reshape(shape).swapaxes(1, 2).reshape(array.shape)
        stored = asked if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(array, stored)
        new = names.get_name(name, try_suffixes=(".weight",))
        assert new is not None
        writer.add_tensor(new, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a Q8_0 GGUF file; read only."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, tiny(), "Q8_0")
    return path


def refused(spec: ModelSpec, kind: type[EvalHarnessError] = InputError) -> str:
    """What is said of a model that cannot be loaded."""
    with pytest.raises(kind) as caught:
        load(spec)
    return str(caught.value)


def logits(model: Any) -> torch.Tensor:
    """Of `IDS`, in float32."""
    with torch.inference_mode(), quiet():
        return model(IDS).logits.float()


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a saved model."""
    file = path / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
