"""Sensitivity: the score against real swaps, the suffix against whole passes, the controls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from evalharness.bisect.rank import Replay, Scores, _noise, confirm, gradient_scores
from evalharness.bisect.swap import restored, swapped
from evalharness.data.windows import Window
from evalharness.pair.matching import PairedModule, match


def windows() -> list[Window]:
    ids = np.random.default_rng(0)
    return [Window(i, i // 2, 0, ids.integers(1, 300, 32), 4, 31) for i in range(8)]


def linears(a: Any, b: Any) -> list[PairedModule]:
    return [p for p in match(a.model, b.model)[0] if p.kind == "linear"]


def measured(a: Any, b: Any, top: int = 4) -> Scores:
    scores = gradient_scores(a, linears(a, b), windows())
    confirm(a, b, linears(a, b), windows(), scores, top)
    return scores


@torch.inference_mode()
def kl_by_hand(a: Any, b: Any) -> float:
    """Mean KL over the scored tokens from two whole passes, in float64."""
    total, n = 0.0, 0
    for s in windows():
        ids = torch.from_numpy(s.ids)[None]
        p, q = (m.model(ids).logits[0, s.first : s.last].double().log_softmax(-1) for m in (a, b))
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


def test_the_score_equals_finite_differences(side: Callable) -> None:
    """½ Σ_t (g_t · ΔY_t)², each product from two whole passes, a position at a time.

    In float64, but for the norms, which transformers computes in float32: hence the large step.
    """
    a, b = side(), side(bits=3)
    a.model.double()
    b.model.double()
    window = Window(0, 0, 0, np.arange(1, 13), 2, 11)
    ids = torch.from_numpy(window.ids)[None]
    scores = gradient_scores(a, linears(a, b), [window])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        z = a.model(ids).logits[0, window.first : window.last].float()
        drawn = torch.multinomial(z.softmax(-1), 1, generator=generator)[:, 0]

        def loss() -> float:
            out = a.model(ids).logits[0, window.first : window.last]
            return float(torch.nn.functional.cross_entropy(out, drawn, reduction="sum"))

        for pair in linears(a, b)[::3]:
            if pair.reference is a.head:
                continue
            score = 0.0
            for t in range(len(window.ids)):
                found = []
                for step in (5e-3, -5e-3):

                    def hook(m: Any, x: Any, y: Any, t: int = t, step: float = step) -> Any:
                        moved = y.clone()
                        moved[0, t] += step * (pair.candidate(x[0]) - y)[0, t]  # noqa: B023
                        return moved

                    handle = pair.reference.register_forward_hook(hook)
                    found.append(loss())
                    handle.remove()
                score += ((found[0] - found[1]) / 1e-2) ** 2 / 2
            expected = score / window.scored
            assert scores.mean("gradient", pair.name) == pytest.approx(expected, rel=5e-3)


def test_noise_has_the_size_of_the_error_at_each_token_and_another_direction(
    side: Callable,
) -> None:
    a, b = side(), side(bits=2)
    pair = linears(a, b)[0]
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        own, delta = pair.reference(x), pair.candidate(x) - pair.reference(x)
        with _noise(pair, torch.Generator().manual_seed(0)):
            noise = pair.reference(x) - own
    assert torch.allclose(noise.norm(dim=-1), delta.norm(dim=-1), rtol=1e-4)
    assert torch.nn.functional.cosine_similarity(noise, delta, dim=-1).abs().mean() < 0.4


def test_the_noise_control_equals_a_whole_pass_by_hand(side: Callable) -> None:
    a, b, clean = side(), side(bits=2), side()
    scores = gradient_scores(a, linears(a, b), windows())
    confirm(a, b, linears(a, b), windows(), scores, 1)
    pair = next(p for p in linears(a, b) if scores.mean("noise", p.name) is not None)
    with _noise(pair, torch.Generator().manual_seed(0)):
        expected = kl_by_hand(clean, a)
    assert scores.mean("noise", pair.name) == pytest.approx(expected, rel=1e-3)


def test_all_swaps_together_equal_a_whole_pass_by_hand(side: Callable) -> None:
    a, b, clean = side(), side(bits=2), side()
    scores = measured(a, b)
    chosen = [p for p in linears(a, b) if scores.mean("swap", p.name) is not None]
    with swapped(chosen):
        assert scores.mean("swap", "*") == pytest.approx(kl_by_hand(clean, a), rel=1e-3)


def test_the_search_takes_what_saves_most_for_a_weight_first(side: Callable) -> None:
    a, b = side(), side(bits=4)
    pairs = linears(a, b)
    scores = Scores(tokens={0: 1})
    for pair in pairs:
        scores.kl["gradient", pair.name] = {0: 1.0}
    smallest = min(p.reference.weight.numel() for p in pairs)
    scores.kl["swap", pairs[-1].name] = {0: 1e6}
    order = scores.by_cost(pairs)
    assert order[0] == pairs[-1].name
    by_name = {p.name: p for p in pairs}
    assert by_name[order[1]].reference.weight.numel() == smallest


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
    replay = Replay(side(), windows()[0])
    with torch.inference_mode():
        for block in ("model.layers.0", "model.layers.1", None):
            assert torch.equal(replay.hidden(block), replay.clean)
