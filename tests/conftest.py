"""Tiny models with a real byte-level tokenizer, made once a session; nothing is fetched."""

from __future__ import annotations

import copy
import gc
import os
import sys

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
# The tests' own tasks hold Python; tests/hostile takes this away.
os.environ["EVALHARNESS_ALLOW_CODE"] = "1"

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalharness.data.documents import Document
from evalharness.spec.model import ModelSpec
from evalharness.spec.suite import Suite

gc.disable()  # until all that the tests import is there, see `Frozen`

TEXT = (
    "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs; "
    "how vexingly quick daft zebras jump! Sphinx of black quartz, judge my vow. "
)


class Frozen:
    """What was imported stays: garbage collection need not walk it again, .3 s each time."""

    def __init__(self) -> None:
        self._modules = 0

    def pytest_collection_finish(self) -> None:
        """Let garbage be collected from here on."""
        gc.enable()
        self.pytest_runtest_setup()

    def pytest_runtest_setup(self) -> None:
        """Once a test has imported a library: after it, when its garbage can be told apart."""
        if len(sys.modules) > self._modules + 100:
            gc.collect()
            gc.freeze()
            self._modules = len(sys.modules)


def pytest_configure(config: pytest.Config) -> None:
    """Collect garbage seldom, as the command line does."""
    gc.set_threshold(50_000, 20, 20)
    config.pluginmanager.register(Frozen())


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a directory with a random two-layer Llama; ``seed`` and config keys tell them apart."""
    made: dict[str, Path] = {}

    def make(seed: int = 0, **config: Any) -> Path:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        key = f"{seed}-{sorted(config.items())}"
        if key not in made:
            path = tmp_path_factory.mktemp("model") / f"tiny{seed}"
            tokenizer = tiny_tokenizer()
            settings = {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": 256,
                "tie_word_embeddings": False,
                "bos_token_id": None,
                "eos_token_id": 0,
            }
            torch.manual_seed(seed)
            model = LlamaForCausalLM(LlamaConfig(**(settings | config)))
            # The default initialisation gives nearly uniform predictions, which test little.
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim == 2:
                        parameter.mul_(8)
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
            made[key] = path
        return made[key]

    return make


def tiny_tokenizer(bos: bool = False) -> Any:
    """A byte-level BPE of some 300 tokens; with ``bos`` it puts its one special token first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    special = {"eos_token": "<eos>", "pad_token": "<eos>"}
    if bos:
        special["bos_token"] = "<eos>"
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<eos> $A", special_tokens=[("<eos>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Twelve documents of different lengths as JSONL."""
    import json

    rows = [
        {"id": f"d{i}", "text": TEXT[i:] + TEXT[: 20 + 9 * i], "kind": "odd" if i % 2 else "even"}
        for i in range(12)
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture
def project(tmp_path: Path, tiny: Callable[..., Path], corpus: Path) -> Path:
    """A directory with base.yaml, candidate.yaml (8-bit simulation), suite.yaml, gates.yaml."""
    (tmp_path / "base.yaml").write_text(
        f"version: 1\nname: base\nmodel: {{path: {tiny()}, dtype: float32, device: cpu}}\n"
    )
    (tmp_path / "candidate.yaml").write_text(
        "from: base.yaml\nname: int4\n"
        "simulate: {weights: {bits: 4, granularity: channel, symmetric: true}}\n"
    )
    (tmp_path / "suite.yaml").write_text(
        f"version: 1\nname: tiny\ncorpora:\n  - {{name: texts, path: {corpus}, "
        "attributes: [kind]}\n"
        "window: {tokens: 32}\nprobes: [layers]\nlayers: {windows: 4}\nbatch_size: 3\n"
        'slices:\n  - {name: odd, where: {kind: "odd"}}\n'
    )
    (tmp_path / "gates.yaml").write_text(
        "version: 1\nname: tiny\ngates:\n  - {metric: kl.mean, max: 1.0e-6}\n"
        "  - {metric: top1.agreement, min: 1%}\ndefaults: {min_n: 2}\n"
    )
    return tmp_path


@pytest.fixture(scope="session")
def side(tiny: Callable[..., Path]) -> Callable[..., Any]:
    """Load a tiny model as one side, of its own each time; ``bits`` simulates quantisation."""
    loaded: dict[str, Any] = {}

    def make(seed: int = 0, bits: int | None = None, dtype: str = "float32", **config: Any) -> Any:
        from evalharness.engines.loading import load
        from evalharness.pair.side import Side

        data: dict[str, Any] = {
            "name": f"tiny{seed}-{bits}",
            "model": {"path": str(tiny(seed, **config)), "dtype": dtype, "device": "cpu"},
        }
        if bits is not None:
            data["simulate"] = {"weights": {"bits": bits, "granularity": "channel"}}
        key = str(data)
        if key not in loaded:
            loaded[key] = load(ModelSpec.model_validate(data))
        return Side(copy.deepcopy(loaded[key]))  # a test may change it; loading takes 10 times this

    return make


@pytest.fixture
def documents() -> list[Document]:
    """Nine documents of random ids, of different lengths."""
    random = np.random.default_rng(0)
    return [
        Document(i, "c", f"d{i}", random.integers(1, 300, 20 + 11 * i), None, {}) for i in range(9)
    ]


@pytest.fixture
def suite() -> Suite:
    """Windows of 32 tokens with the layer probe on five of them."""
    return Suite.model_validate(
        {
            "name": "s",
            "corpora": [{"name": "c", "source": "python:x"}],
            "window": {"tokens": 32},
            "probes": ["layers"],
            "layers": {"windows": 5},
        }
    )
