"""Tasks through an engine that keeps its modules to itself: lm-eval's numbers by brute force."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from evalharness.pair.tasks.hflm import PlainLM
from evalharness.pair.tasks.kept_prompts import KeptPrompts
from evalharness.pair.tasks.packed_pass import PackedSide, PairedPass
from tests.engines.toy import logits, native
from tests.pair.tasks.both_ways import assert_same, both_ways
from tests.pair.tasks.lm_sides import run, side

Tiny = Callable[..., Path]
REQUESTS = [((5, 6, 7), (8, 9)), ((5, 6, 7), (8, 10, 11)), ((5, 6, 7), (12,)), ((9,), (5, 5))]


def scored(context: Any, continuation: Any, seed: int = 0) -> tuple[float, bool]:
    """The log-likelihood of ``continuation``, and whether it is what greedy would say."""
    z = logits([*context, *continuation], seed)[len(context) - 1 : -1].log_softmax(-1)
    target = torch.tensor(continuation)
    return float(z.gather(1, target[:, None]).sum()), bool((z.argmax(-1) == target).all())


def instance(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments, doc_id=0)


def test_lm_evals_own_model_over_an_engine() -> None:
    """Log-likelihoods of choices and of a whole text, and a generation."""
    loaded = native()
    encode, decode = loaded.tokenizer.encode, loaded.tokenizer.decode
    lm = PlainLM(loaded, batch_size=4, max_length=64, answered=lambda count: None)
    asked = [("The quick", " brown fox"), ("The quick", " dog"), ("Pack my box", " with")]
    found = lm.loglikelihood([instance(*a) for a in asked])
    for (context, continuation), (value, likeliest) in zip(asked, found, strict=True):
        ids = encode(context + continuation)
        expected = scored(encode(context), ids[len(encode(context)) :])
        assert (pytest.approx(value, abs=1e-4), likeliest) == expected
    text = "Sphinx of black quartz, judge my vow."
    (value,) = lm.loglikelihood_rolling([instance(text)])
    assert value == pytest.approx(scored([0], encode(text))[0], abs=1e-3)
    prompt = "Pack my box with"
    options = {"until": ["\n\n"], "max_gen_toks": 12}
    (answer,) = lm.generate_until([instance(prompt, options)], disable_tqdm=True)
    ids = encode(prompt)
    for _ in range(12):
        ids = [*ids, int(logits(ids)[-1].argmax())]
        if ids[-1] == 0:
            break
    assert answer == decode(ids[len(encode(prompt)) :], skip_special_tokens=True)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_seen_in_a_generation(number: float) -> None:
    """The likeliest of them is some token all the same."""
    loaded = native()
    extend = loaded.model.runner.extend

    def broken(ids: list[int], *, fresh: bool) -> Any:
        found = extend(ids, fresh=fresh)
        found[17] = number
        return found

    loaded.model.runner.extend = broken
    lm = PlainLM(loaded, batch_size=1, max_length=64, answered=lambda count: None)
    options = {"until": ["\n\n"], "max_gen_toks": 4}
    lm.generate_until([instance("Pack my box", options)], disable_tqdm=True)
    assert lm.nonfinite_generations == 1


def test_requests_are_scored_with_both_engines_at_once() -> None:
    """Answers and divergence at each scored place, by brute force in float64."""
    sides = [PackedSide(native(0)), PackedSide(native(1, chunk=3))]
    paired = PairedPass(sides, batch_size=2, max_length=64)
    for number in (0, 1):
        for request, (value, likeliest) in zip(
            REQUESTS, paired.answers(number, REQUESTS), strict=True
        ):
            assert (pytest.approx(value, abs=1e-4), likeliest) == scored(*request, number)
    expected = {}
    for item, (context, continuation) in enumerate(REQUESTS):
        for at in range(len(continuation)):
            ids = [*context, *continuation[:at]]
            p, q = (logits(ids, seed)[-1].log_softmax(-1) for seed in (0, 1))
            expected[item, len(ids)] = float((p.exp() * (p - q)).sum())
    found = paired.positions(list(enumerate(REQUESTS)))
    got = {
        (i, p): kl for i, p, kl in zip(found["item"], found["position"], found["kl"], strict=True)
    }
    assert sorted(got) == sorted(expected)
    for place, kl in expected.items():
        assert got[place] == pytest.approx(kl, rel=1e-4)


def test_places_are_not_kept_for_other_candidates() -> None:
    """They say nothing once the sequences are forgotten."""
    kept = KeptPrompts(1 << 20)
    reference = PackedSide(native(0))
    for candidate in (1, 2):
        sides = [reference, PackedSide(native(candidate))]
        paired = PairedPass(sides, batch_size=2, max_length=64, kept=kept)
        found = paired.answers(0, REQUESTS)
        reference.side.model.sequences._ids.clear()
        for request, (value, _) in zip(REQUESTS, found, strict=True):
            assert value == pytest.approx(scored(*request)[0], abs=1e-4)
    assert len(kept) == 0


@pytest.mark.parametrize("native_reference", [False, True])
def test_tasks_of_an_engine_are_the_same_packed_and_by_lm_eval(
    tiny: Tiny, native_reference: bool
) -> None:
    """Choices, likelihoods, windows and texts, beside transformers on either side."""
    pair = [side(tiny, 0), native(1)]
    if native_reference:
        pair.reverse()
    plain, packed = both_ways(*pair, "choose.yaml", "finish.yaml", "read.yaml", limit=5)
    assert_same(plain, packed)
    assert not packed[0][0].positions.empty
    assert plain[0][0].positions.empty


def test_an_engine_against_itself_diverges_nowhere() -> None:
    """Exactly, and generates the same."""
    one, other = native(0), native(0)
    chosen, written = run(one, other, "choose.yaml", "write.yaml", limit=4)
    assert len(chosen.positions) > 0
    assert (chosen.positions[["kl", "kl_reverse", "half_range"]] == 0).all(axis=None)
    for found in (chosen, written):
        np.testing.assert_array_equal(found.frame["score_ref"], found.frame["score_cand"])
