"""What must hold for every policy and every estimate (Hypothesis)."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evalharness.gates import Decision, decide
from evalharness.spec.estimate import Estimate
from tests.gates.fakes import FakeEstimates, estimate, policy

properties = settings(deadline=None, max_examples=60)  # machines are shared
SHIFTS = ("nll.shift", "kl.mean", "brier.shift")
numbers = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3))
widths = st.floats(0, 0.5).map(lambda x: round(x, 3))
decides = st.sampled_from(["confident", "not-worse", "point"])
ORDER = {"PASS": 0, "INCONCLUSIVE": 1, "FAIL": 2}


def decided(limits: list[float], estimates: list[Estimate], how: str) -> Decision:
    lines = "".join(
        f"  - {{metric: {metric}, max: {limit}, decide: {how}}}\n"
        for metric, limit in zip(SHIFTS, limits)
    )
    return decide(policy(f"gates:\n{lines}"), FakeEstimates(*estimates))


@st.composite
def measured(draw: st.DrawFn, metric: str) -> Estimate:
    value, below, above = draw(numbers), draw(widths), draw(widths)
    clusters = draw(st.integers(2, 200))
    return estimate(metric, value, value - below, value + above, clusters=clusters, confidence=0.9)


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[float], list[Estimate], str]:
    return (
        draw(st.lists(numbers, min_size=3, max_size=3)),
        [draw(measured(m)) for m in SHIFTS],
        draw(decides),
    )


@st.composite
def broken(draw: st.DrawFn) -> Estimate | None:
    """Missing, NaN, empty, of one document, or without an interval."""
    good = draw(measured("nll.shift"))
    nan = float("nan")
    change: dict[str, Any] | None = draw(
        st.sampled_from(
            [
                None,
                {"value": None, "low": None, "high": None},
                {"value": nan},
                {"low": nan},
                {"high": float("inf")},
                {"low": None},
                {"low": None, "high": None},
                {"clusters": 0, "n": 0},
                {"clusters": 1},
            ]
        )
    )
    return None if change is None else good.model_copy(update=change)


@properties
@given(broken(), numbers, decides)
def test_what_was_not_measured_well_never_passes(
    one: Estimate | None, limit: float, how: str
) -> None:
    """Neither the gate nor the policy, whatever the limit and the way to decide."""
    text = f"gates:\n  - {{metric: nll.shift, max: {limit}, decide: {how}}}\n"
    estimates = FakeEstimates(*([] if one is None else [one]))
    decision = decide(policy(text), estimates)
    assert decision.gates[0].verdict != "PASS"
    assert decision.verdict != "PASS"
    assert decision.exit_code != 0


@properties
@given(runs(), st.integers(0, 2), widths, widths)
def test_widening_an_interval_never_makes_a_pass(
    run: tuple[list[float], list[Estimate], str], which: int, below: float, above: float
) -> None:
    """Less is known, so no gate and no policy that was INCONCLUSIVE may pass."""
    limits, estimates, how = run
    before = decided(limits, estimates, how)
    old = estimates[which]
    assert old.low is not None
    assert old.high is not None
    wider = old.model_copy(update={"low": old.low - below, "high": old.high + above})
    after = decided(limits, [wider if e is old else e for e in estimates], how)
    for was, now in zip(before.gates, after.gates):
        assert was.verdict == "PASS" or now.verdict != "PASS"
    if before.verdict == "INCONCLUSIVE":
        assert after.verdict != "PASS"


@properties
@given(runs(), st.integers(0, 2), widths)
def test_loosening_a_limit_never_makes_a_failure_of_a_pass(
    run: tuple[list[float], list[Estimate], str], which: int, by: float
) -> None:
    """For every gate of the policy, Holm's correction included, and for the policy."""
    limits, estimates, how = run
    before = decided(limits, estimates, how)
    looser = [limit + by if i == which else limit for i, limit in enumerate(limits)]
    after = decided(looser, estimates, how)
    for was, now in zip(before.gates, after.gates):
        if was.verdict == "PASS":
            assert now.verdict == "PASS"
    assert ORDER[after.gates[which].verdict] <= ORDER[before.gates[which].verdict]
    if before.verdict == "PASS":
        assert after.verdict == "PASS"


@properties
@given(runs())
def test_a_policy_passes_exactly_when_every_gate_does(
    run: tuple[list[float], list[Estimate], str],
) -> None:
    """And blocks otherwise."""
    decision = decided(*run)
    every = all(g.verdict == "PASS" for g in decision.gates)
    assert (decision.verdict == "PASS") == every
    assert (decision.exit_code == 0) == every


@properties
@given(runs())
def test_holm_withdraws_and_never_adds(run: tuple[list[float], list[Estimate], str]) -> None:
    """A gate in a policy is what it is alone, or a FAIL became INCONCLUSIVE; some FAIL stays."""
    limits, estimates, how = run
    together = decided(limits, estimates, how)
    alone = []
    for metric, limit, one in zip(SHIFTS, limits, estimates):
        text = f"gates:\n  - {{metric: {metric}, max: {limit}, decide: {how}}}\n"
        alone.append(decide(policy(text), FakeEstimates(one)).gates[0])
    for single, joint in zip(alone, together.gates):
        if single.verdict != joint.verdict:
            assert (single.verdict, joint.verdict) == ("FAIL", "INCONCLUSIVE")


@properties
@given(runs())
def test_the_order_of_the_gates_changes_nothing(
    run: tuple[list[float], list[Estimate], str],
) -> None:
    """Same rules, same verdicts."""
    limits, estimates, how = run
    assume(len(set(limits)) == 3)
    forward = decided(limits, estimates, how)
    lines = "".join(
        f"  - {{metric: {metric}, max: {limit}, decide: {how}}}\n"
        for metric, limit in reversed(list(zip(SHIFTS, limits)))
    )
    backward = decide(policy(f"gates:\n{lines}"), FakeEstimates(*estimates))
    assert {g.id: g.verdict for g in forward.gates} == {g.id: g.verdict for g in backward.gates}
    assert forward.verdict == backward.verdict
