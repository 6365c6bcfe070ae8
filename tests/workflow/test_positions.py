"""Windows beyond a model's positions are refused before it is loaded, or warned of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evalharness.data.documents import Text
from evalharness.engines.loading import load
from evalharness.errors import InputError
from evalharness.spec.model import ModelSpec
from evalharness.spec.suite import Corpus, LatencySettings, Suite, Windowing
from evalharness.workflow.positions import check_positions
from tests.conftest import tiny_tokenizer


def job(
    path: Path, window: int, text: str = "x" * 500, tokens: Any = None, probes: tuple[str, ...] = ()
) -> Any:
    """What the check reads of a comparison of a model with itself."""
    spec = ModelSpec.model_validate({"name": "m", "model": {"path": str(path), "device": "cpu"}})
    texts = [Text("c", "d", None if tokens is not None else text, tokens, {})]
    suite = Suite(
        name="s",
        corpora=(Corpus(name="c", source="python:x"),),
        window=Windowing(tokens=window),
        probes=probes,
    )
    return SimpleNamespace(reference=spec, candidate=spec, suite=suite, texts=texts)


def saved(path: Path, kind: str) -> Path:
    """A random model with a table of 64 positions."""
    from transformers import AutoConfig, AutoModelForCausalLM

    names = {
        "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64},
        "opt": {
            "hidden_size": 16,
            "word_embed_proj_dim": 16,
            "ffn_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
        },
    }
    config = AutoConfig.for_model(kind, vocab_size=300, **names[kind])
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_a_window_beyond_a_position_table_is_refused(kind: str, tmp_path: Path) -> None:
    """Up to the table it runs; beyond, looking up a position would fail half-way."""
    path = saved(tmp_path, kind)
    assert check_positions(job(path, 64)) == []
    model = load(job(path, 64).reference).model
    import torch

    ids = torch.zeros(1, 65, dtype=torch.long)
    assert model(ids[:, :64]).logits.shape[1] == 64
    with pytest.raises((IndexError, RuntimeError)):
        model(ids)
    with pytest.raises(InputError) as caught:
        check_positions(job(path, 65))
    assert str(caught.value) == (
        "window.tokens: m has 64 positions, and windows of this suite have up to 65 tokens. "
        "Set window: {tokens: 64} in the suite, or less."
    )


def test_short_texts_need_few_positions(tmp_path: Path) -> None:
    """A window is no longer than its text, of which a token is a byte at least."""
    path = saved(tmp_path, "gpt2")
    assert check_positions(job(path, 2048, text="x" * 63)) == []
    assert check_positions(job(path, 2048, tokens=np.zeros(63, int))) == []
    with pytest.raises(InputError, match="up to 65 tokens"):
        check_positions(job(path, 2048, tokens=np.zeros(64, int)))


def test_rotary_positions_beyond_training_are_said(tiny: Callable[..., Path]) -> None:
    """They are computed, and nobody trained them."""
    assert check_positions(job(tiny(), 256)) == []
    said = check_positions(job(tiny(), 300))
    assert said[0] == (
        "m was made for 256 tokens, as its config.json says, and windows of this suite have up to "
        "300: what lies beyond is measured outside its training"
    )


def test_decoding_beyond_a_position_table_is_refused(tmp_path: Path) -> None:
    """The probe's sixteen steps come after its prompt: 48 + 16 fit, one more does not."""
    path = saved(tmp_path, "gpt2")
    assert check_positions(job(path, 48, probes=("latency",))) == []
    with pytest.raises(InputError) as caught:
        check_positions(job(path, 49, probes=("latency",)))
    assert str(caught.value) == (
        "probes: m has 64 positions, and the probe latency takes up to 65 with the windows of this "
        "suite. Leave the probe out of the suite, or give it shorter windows."
    )


def test_the_positions_that_the_clock_takes_are_those_that_were_asked_for(tmp_path: Path) -> None:
    """On a table that is full with the last step, and beyond it."""
    from evalharness.pair.side import Side
    from evalharness.probes.decoding import time_both

    side = Side(load(job(saved(tmp_path, "gpt2"), 64).reference))
    steps = LatencySettings().steps
    full, beyond = ([list(range(1, n + 1))] for n in (48, 49))
    assert len(time_both(side, side, [full], steps, 1, lambda said: None)) == 2
    with pytest.raises(IndexError):
        time_both(side, side, [beyond], steps, 1, lambda said: None)


def test_the_probes_settings_say_how_many_positions_it_takes(tmp_path: Path) -> None:
    """Prompts as long as the table leaves no room for a step."""
    path = saved(tmp_path, "gpt2")
    asked = job(path, 64, probes=("latency",))
    latency = LatencySettings(prompt_tokens=60, steps=4)
    asked.suite = asked.suite.model_copy(update={"latency": latency})
    assert check_positions(asked) == []
    latency = LatencySettings(prompt_tokens=60, steps=5)
    asked.suite = asked.suite.model_copy(update={"latency": latency})
    with pytest.raises(InputError, match="the probe latency takes up to 65"):
        check_positions(asked)
