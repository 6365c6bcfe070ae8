"""When requests are not packed, and that it is said."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pair.tasks.both_ways import architecture, assert_same, both_ways
from tests.pair.tasks.lm_sides import prepare, side

Tiny = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bloom", "BloomForCausalLM takes positions from ALiBi, which a packed mask does not"),
        (
            "mamba",
            "MambaForCausalLM carries a state from token to token; tasks are scored request by "
            "request, and without KL",
        ),
    ],
)
def test_what_cannot_be_packed_is_scored_by_lm_eval_and_said(name: str, why: str) -> None:
    """The very scores of the other scorer, and a note that says why."""
    pair = architecture(name, 0), architecture(name, 0)
    plain, packed = both_ways(*pair, "choose.yaml", "finish.yaml")
    assert packed[0][0].notes[0].startswith(f"{name}0: {why}")
    assert packed[0][1].notes == ()  # said once
    assert_same(plain, packed, tolerance=0.0)


def test_requests_longer_than_a_sliding_window_are_not_packed() -> None:
    """A mask of ours would let them see beyond it. Shorter ones are packed."""
    pair = [architecture("mistral", s, sliding_window=60) for s in (0, 1)]
    plain, packed = both_ways(*pair, "finish.yaml", "choose.yaml")
    assert packed[0][0].notes == ()
    assert packed[0][1].notes == (
        "mistral0 and mistral1: requests of more than 60 tokens, which attention here does not "
        "reach back over, are scored request by request, and without KL",
    )
    assert_same(plain, packed)


def test_the_probe_finds_a_model_that_ignores_the_mask(tiny: Tiny) -> None:
    """An architecture nobody listed: positions and masks that are not honoured."""
    from evalharness.pair.tasks.packed_pass import PackedSide
    from evalharness.pair.tasks.packing_trial import probe

    loaded = side(tiny, 0)
    assert probe(PackedSide(loaded)) is None
    real = loaded.model.model.forward

    def careless(*args: Any, attention_mask: Any = None, **options: Any) -> Any:
        return real(*args, **options)

    loaded.model.model.forward = careless
    why = probe(PackedSide(loaded))
    assert why is not None
    assert why.startswith("LlamaForCausalLM scores a packed probe differently, by ")


def test_the_probe_tells_rounding_from_a_leak_in_16_bits(tiny: Tiny) -> None:
    """bfloat16 differs by more than float32's tolerance and is still exact up to rounding."""
    import torch

    from evalharness.pair.tasks.packed_pass import PackedSide
    from evalharness.pair.tasks.packing_trial import probe

    loaded = side(tiny, 0)
    loaded.model.to(torch.bfloat16)
    assert probe(PackedSide(loaded)) is None
    real = loaded.model.model.forward
    loaded.model.model.forward = lambda *a, attention_mask=None, **o: real(*a, **o)
    assert probe(PackedSide(loaded)) is not None


def test_a_broken_candidate_is_an_anomaly_here_too(tiny: Tiny) -> None:
    """NaN weights: the probe cannot agree, HFLM scores, the task has no score."""
    import torch

    from evalharness.pair.tasks.run import run_tasks

    reference, candidate = side(tiny, 0), side(tiny, 1)
    with torch.no_grad():
        candidate.model.lm_head.weight[7] = math.nan
    (run,) = run_tasks(reference, candidate, prepare("choose.yaml"), batch_size=2)
    assert run.anomalies[0].startswith("tiny1: NaN or infinite log-likelihood for 5 of 5 items")
    assert run.notes[0].startswith(
        "tiny1: LlamaForCausalLM gives NaN or infinite logits on a probe"
    )
    assert all(r.candidate is None and r.reference is not None for r in run.scores)
