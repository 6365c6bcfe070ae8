"""Sensitivity: the score against real swaps, the suffix against whole passes, the controls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from evalharness.data.windows import Slot
from evalharness.pair.restore import restored, swapped
from evalharness.probes.matching import PairedModule, match
from evalharness.probes.sensitivity import Replay, Scores, confirm, gradient_scores


def slots() -> list[Slot]:
    ids = np.random.default_rng(0)
    return [Slot(i, i // 2, 0, ids.integers(1, 300, 32), 4, 31) for i in range(8)]


def linears(a: Any, b: Any) -> list[PairedModule]:
    return [p for p in match(a.model, b.model)[0] if p.kind == "linear"]


def measured(a: Any, b: Any, top: int = 4) -> Scores:
    scores = gradient_scores(a, linears(a, b), slots())
    confirm(a, b, linears(a, b), slots(), scores, top)
    return scores


@torch.inference_mode()
def kl_by_hand(a: Any, b: Any) -> float:
    """Mean KL over the scored tokens from two whole passes, in float64."""
    total, n = 0.0, 0
    for s in slots():
        ids = torch.from_numpy(s.ids)[None]
        p, q = (
            m.model(ids).logits[0, s.first : s.last].double().log_softmax(-1) for m in (a, b)
        )  # fmt: skip
        total += float((p.exp() * (p - q)).sum())
        n += s.scored
    return total / n


def test_swap_and_restore_equal_whole_passes_by_hand(side: Callable) -> None:
    """Leaving out the blocks before a module changes nothing."""
    a, b, clean = side(), side(bits=2), side()
    scores = measured(a, b)
    assert scores.zero_swap == 0.0
    assert scores.suffix
    for pair in linears(a, b):
        if scores.mean("swap", pair.name) is None:
            continue
        with swapped([pair]):
            assert scores.mean("swap", pair.name) == pytest.approx(kl_by_hand(clean, a), rel=1e-3)
        with restored([pair]):
            expected = kl_by_hand(clean, b)
            assert scores.mean("restore", pair.name) == pytest.approx(expected, rel=1e-3)
    assert scores.mean("restore", "") == pytest.approx(kl_by_hand(clean, b), rel=1e-3)


def test_the_score_is_the_kl_of_a_small_damage(side: Callable) -> None:
    """To second order, and up to the draw of tokens."""
    a, b = side(num_hidden_layers=3), side(num_hidden_layers=3, bits=6)
    scores = measured(a, b, top=30)
    names = [p.name for p in linears(a, b)]
    score = np.log([scores.mean("gradient", n) for n in names])
    swap = np.log([scores.mean("swap", n) for n in names])
    assert np.corrcoef(score, swap)[0, 1] > 0.8
    assert abs(float(np.median(score - swap))) < np.log(2)


def test_the_damaged_module_is_the_most_sensitive(side: Callable) -> None:
    a, b = side(), side(bits=8)
    with torch.no_grad():
        b.model.model.layers[1].mlp.down_proj.weight.mul_(2)
    assert measured(a, b).ranked()[0] == "model.layers.1.mlp.down_proj"


def test_a_model_against_itself_scores_zero_everywhere(side: Callable) -> None:
    scores = measured(side(), side())
    assert {v for found in scores.kl.values() for v in found.values()} == {0.0}


def test_what_is_restored_is_taken_out_again(side: Callable) -> None:
    a, b = side(), side(bits=2)
    ids = torch.arange(1, 20)[None]
    before = b.model(ids).logits
    with restored(linears(a, b)):
        assert torch.equal(b.model(ids).logits, a.model(ids).logits)
    assert torch.equal(b.model(ids).logits, before)
    assert all("forward" not in m.__dict__ for m in b.model.modules())


def test_a_replay_without_swaps_is_the_pass_itself(side: Callable) -> None:
    replay = Replay(side(), slots()[0])
    with torch.inference_mode():
        for block in ("model.layers.0", "model.layers.1", None):
            assert torch.equal(replay.hidden(block), replay.clean)
