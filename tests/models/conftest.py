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
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evalharness.spec.model import ModelSource, ModelSpec

torch.set_num_threads(1)


def tiny(*, tied: bool = False, hidden: int = 64, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A random Llama of two layers with 256 tokens."""
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
    return LlamaForCausalLM(config).to(dtype).eval()


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
