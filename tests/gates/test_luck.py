"""What passed on luck: few data without a change, and metrics that hide what they measure."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalharness.errors import InputError
from evalharness.gates import decide, load_policy
from evalharness.metrics import REGISTRY, Estimates, Evidence
from evalharness.run.assets import shipped
from evalharness.run.directory import InMemory
from evalharness.stats import cluster_skew_t, mean_of_parts, positive_mean_t
from evalharness.testing.records import MANIFEST, Arrow, estimates, synthetic
from tests.gates.fakes import estimate, gate, only

# Shares and bounded scores, in which an event may be rare: the scope, the limit's side, how far
# from the best possible value a limit of 1 is, and whether documents or what is in them count.
SHARES = {
    "top1.agreement": ("", "min", 1.0, "n"),
    "top5.overlap": ("", "min", 1.0, "n"),
    "top1.harmful": ("", "max", 0.0, "n"),
    "top1.gained": ("", "max", 0.0, "n"),
    "top1.net_harm": ("", "max", 0.0, "n"),
    "kl.exceed_rate": ('bound: "0.5"', "max", 0.0, "clusters"),
    "nll.exceed_rate": ('bound: "0.5"', "max", 0.0, "clusters"),
    "logit.exceed_rate": ('bound: "1"', "max", 0.0, "clusters"),
    "router.agreement": ("layer: gate", "min", 1.0, "n"),
    "task.flips": ("task: quiz", "max", 0.0, "n"),
    "task.score.shift": ("task: quiz", "min", 0.0, "n"),
}
properties = settings(max_examples=100, deadline=None)


@pytest.mark.parametrize("documents", [3, 6, 12])
def test_few_documents_without_a_flip_do_not_show_agreement(documents: int) -> None:
    """Of 3 that all agree, one token in 10,000 may still differ; of a whole half it is plain."""
    same = estimates(synthetic(documents, damage=0.0))
    found = [
        decide(gate(f"metric: top1.agreement, min: {least}, min_n: 2"), same).gates[0]
        for least in (0.9999, 0.3)
    ]
    assert [f.verdict for f in found] == ["INCONCLUSIVE", "PASS"]
    assert found[0].observed == 1.0


@pytest.mark.parametrize("place", ["metric: ece.shift, max: 0.9", "metric: kl.max, max: 9"])
def test_what_is_shown_only_is_refused_as_a_gate_and_as_a_condition(place: str) -> None:
    """And what to gate instead is named."""
    instead = "ce2.shift or calibration.score.shift" if "ece" in place else "kl.p999"
    with pytest.raises(InputError, match=f"never gated.*Gate {instead}"):
        gate(place)
    with pytest.raises(InputError, match=f"never gated.*Gate {instead}"):
        gate(f"metric: nll.shift, max: 0.01, unless: {{max: 0.02, any: [{{{place}}}]}}")


def test_the_ways_to_pass_share_the_chance_to_be_wrong() -> None:
    """A limit that 95% shows, and 97.5% does not, is not met by a gate with a second way."""
    one = estimate("nll.shift", 0.0, -0.0095, 0.0095, confidence=0.9)
    other = estimate("kl.mean", 1.0, 0.9, 1.1, confidence=0.9)
    assert only("metric: nll.shift, max: 0.01", one).verdict == "PASS"
    unless = "unless: {max: 0.011, any: [{metric: kl.mean, max: 0.5}]}"
    assert only(f"metric: nll.shift, max: 0.01, {unless}", one, other).verdict == "INCONCLUSIVE"


def test_a_way_that_is_counted_takes_no_share() -> None:
    """Bytes are no test."""
    one = estimate("nll.shift", 0.0, -0.0095, 0.0095, confidence=0.9)
    size = estimate("memory.weights.ratio", 0.9, 0.9, 0.9)
    unless = "unless: {max: 0.011, any: [{metric: memory.weights.ratio, max: 50%}]}"
    assert only(f"metric: nll.shift, max: 0.01, {unless}", one, size).verdict == "PASS"


STOPPING: dict[str, Any] = {
    "whole": None,
    "sequence": {"rule": "sequence", "tuned_for": 30},
    "looks": {"rule": "looks", "looks": 5, "taken": [0.2, 0.4]},
}


@cache
def unchanged(documents: int, items: int, kind: str, rule: str) -> Estimates:
    """A run in which nothing changed; items are right or wrong, or scored in between."""
    tables = synthetic(documents, damage=0.0)
    some = tables["items"].iloc[:items]
    if kind == "scored":
        scores = np.linspace(0.2, 0.9, items)
        some = some.assign(binary=False, score_ref=scores, score_cand=scores)
    manifest: Any = {**MANIFEST, "stop_early": STOPPING[rule]}
    return Estimates(Evidence(InMemory(manifest, Arrow({**tables, "items": some}))))


@properties
@given(
    metric=st.sampled_from(sorted(SHARES)),
    documents=st.integers(2, 16),
    items=st.integers(2, 60),
    kind=st.sampled_from(["binary", "scored"]),
    rule=st.sampled_from(sorted(STOPPING)),
    loss=st.floats(1e-5, 0.6),
)
def test_no_difference_passes_no_limit_that_so_few_data_could_not_decide(
    metric: str, documents: int, items: int, kind: str, rule: str, loss: float
) -> None:
    """At the limit, n independent draws hold no event with (1 − loss)ⁿ: that has to be below 5%."""
    scope, side, best, unit = SHARES[metric]
    seen = unchanged(documents, items, kind, rule)
    if metric == "task.flips" and kind == "scored":
        return  # it is of right or wrong items
    limit = best - loss if side == "min" else loss
    asked = f"metric: {metric}, {side}: {limit!r}, min_n: 2, scope: {{{scope}}}"
    (result,) = decide(gate(asked), seen).gates
    (where,) = [s for s in seen.scopes(metric) if s == result.scope]
    count = getattr(seen.estimate(metric, where, 0.9), unit)
    assert result.observed == best
    if (1 - loss) ** count > 0.05 * (1 + 1e-9):
        assert result.verdict == "INCONCLUSIVE"
    elif metric == "task.flips" or (metric == "kl.exceed_rate" and rule == "whole"):
        assert result.verdict == "PASS", "the bound is exact for these"


def test_every_share_that_can_be_gated_is_tried() -> None:
    """Any other metric without a difference is 0 throughout, which compression never is."""
    rates = {id for id, m in REGISTRY.items() if m.rate or m.unit == "fraction"}
    left_out = {id for id in rates if REGISTRY[id].instead or REGISTRY[id].ungated}
    left_out |= {id for id in rates if REGISTRY[id].deterministic}  # counted, not sampled
    # Of probabilities, which all move where any does, as for KL.
    of_probabilities = {"acceptance.rate", "prob.rms_shift", "ece.reference", "ece.candidate"}
    of_probabilities |= {"ce2.shift", "brier.shift", "calibration.score.shift"}
    assert rates - left_out - of_probabilities <= SHARES.keys()


@settings(max_examples=20, deadline=None)
@given(names=st.lists(st.sampled_from("uvwxyz"), min_size=24, max_size=24))
def test_corpora_are_names_alone_where_a_gate_does_not_ask_for_them(names: list[str]) -> None:
    """However documents are dealt out to them, every policy that ships decides the same."""
    tables = damaged()
    renamed = {**tables, "documents": tables["documents"].assign(corpus=names)}
    assert shipped_decisions(estimates(renamed)) == whole()


@cache
def damaged() -> Any:
    return synthetic(24, damage=0.2)


@cache
def whole() -> list[Any]:
    return shipped_decisions(estimates(damaged()))


def shipped_decisions(found: Estimates) -> list[Any]:
    """The verdicts and intervals of all gates of the policies that ship."""
    results = []
    for name in sorted(shipped("gates")):
        for g in decide(load_policy(shipped("gates")[name]), found).gates:
            results.append((name, g.id, g.verdict, g.low, g.high, g.further_documents))
    return results


@pytest.mark.parametrize("world", ["shift", "divergence"])
def test_a_corpus_in_two_passes_no_gate_on_each_that_it_did_not_pass_whole(world: str) -> None:
    """Dealt out at random, 20 documents each; and at its limit their mean passes no more often."""
    random, runs, passed, most = np.random.default_rng(5), 400, 0, 40
    ones = np.ones(most)
    for _ in range(runs):
        if world == "shift":
            values, limit, of = random.normal(0.01, 0.02, most), 0.01, cluster_skew_t
        else:
            values, limit, of = random.lognormal(-0.125, 0.5, most), 1.0, positive_mean_t
        halves = [of(v, np.ones(v.size), 0.9) for v in np.split(values, 2)]
        together = of(values, ones, 0.9)
        worst = max(half.high for half in halves)  # type: ignore[type-var]
        assert worst >= together.high  # type: ignore[operator]
        passed += mean_of_parts(halves, [0.5, 0.5]).high < limit  # type: ignore[operator]
    assert passed <= runs * (0.05 + 2 * np.sqrt(0.05 * 0.95 / runs))
