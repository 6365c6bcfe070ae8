"""The same properties for every kind of rule: each, worst, mean, relative, ratchet, trade-off."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from evalharness.gates import Decision, decide
from evalharness.gates.baseline import StoredBaseline
from evalharness.spec.estimate import Estimate
from tests.gates.fakes import FakeEstimates, estimate, policy

properties = settings(deadline=None, max_examples=60)
TASKS = ("a", "b")
RULES = {  # {0} is how many points of drop are allowed, {1} how it is decided
    "worst": "{{id: g, metric: task.score.shift, min: -{0}pp, decide: {1}}}",
    "each": "{{id: g, metric: task.score.shift, min: -{0}pp, decide: {1}, each: true}}",
    "mean": "{{id: g, metric: task.score.shift, min: -{0}pp, decide: {1}, aggregate: mean}}",
    "relative": "{{id: g, metric: task.score.shift, min: -{0}%, decide: {1}, "
    "relative_to: reference}}",
    "ratchet": "{{id: g, metric: task.score.shift, min: -{0}pp, decide: {1}, "
    "relative_to: baseline}}",
    "trade-off": "{{id: g, metric: task.score.shift, min: -{0}pp, decide: {1}, "
    "unless: {{min: -90pp, any: [{{metric: latency.decode.ratio, max: 0.7}}]}}}}",
}
ways = st.sampled_from(["confident", "not-worse", "point"])
kinds = st.sampled_from(list(RULES))
points = st.integers(1, 30)
widths = st.floats(0, 0.3).map(lambda x: round(x, 3))


def scope(task: str) -> dict[str, str]:
    return {"task": task, "metric": "acc"}


IDENTITY = {"data": "d1", "tokenizer": "t1", "metrics": "m1"}
STORED = StoredBaseline(
    "main.json",
    "runs/main",
    IDENTITY,
    tuple(estimate("task.score.shift", 0.01, 0.0, 0.02, scope=scope(t)) for t in TASKS),
)


def decided(kind: str, allowed: int, how: str, estimates: list[Estimate]) -> Decision:
    rule = RULES[kind].format(allowed, how)
    return decide(
        policy(f"gates:\n  - {rule}\n"),
        FakeEstimates(*estimates),
        baseline=STORED,
        identity=IDENTITY,
    )


@st.composite
def runs(draw: st.DrawFn) -> list[Estimate]:
    """Two tasks with their reference scores, and the latency that may earn the looser limit."""

    def one(metric: str, low: float, high: float, **more: Any) -> Estimate:
        value = round(draw(st.floats(low, high)), 3)
        below, above = draw(widths), draw(widths)
        return estimate(metric, value, value - below, value + above, confidence=0.9, **more)

    return [
        *(one("task.score.shift", -0.4, 0.2, scope=scope(t)) for t in TASKS),
        *(one("task.score.reference", 0.3, 0.9, scope=scope(t)) for t in TASKS),
        one("latency.decode.ratio", 0.5, 0.9),
    ]


def touched(kind: str) -> list[int]:
    """The estimates that a rule of this kind rests on."""
    return {"relative": [0, 1, 2, 3], "trade-off": [0, 1, 4]}.get(kind, [0, 1])


BROKEN: list[dict[str, Any]] = [
    {"value": None, "low": None, "high": None},
    {"value": math.nan},
    {"low": math.nan},
    {"high": math.inf},
    {"low": None, "high": None},
    {"clusters": 0, "n": 0},
    {"clusters": 1},
]


@properties
@given(kinds, points, ways, runs(), st.integers(0, 1), st.sampled_from(BROKEN))
def test_one_broken_part_never_passes(
    kind: str, allowed: int, how: str, run: list[Estimate], which: int, change: dict[str, Any]
) -> None:
    """Neither the whole gate nor, with each, the result of that part."""
    run[which] = run[which].model_copy(update=change)
    decision = decided(kind, allowed, how, run)
    own = [g for g in decision.gates if kind != "each" or g.scope == scope(TASKS[which])]
    assert own
    assert all(g.verdict != "PASS" for g in own)
    assert decision.verdict != "PASS"


@properties
@given(kinds, points, ways, runs(), st.data(), widths, widths)
def test_widening_any_interval_never_makes_a_pass(
    kind: str,
    allowed: int,
    how: str,
    run: list[Estimate],
    data: st.DataObject,
    below: float,
    above: float,
) -> None:
    """Also that of the reference's own score, and of what earns a looser limit."""
    before = decided(kind, allowed, how, run)
    which = data.draw(st.sampled_from(touched(kind)))
    old = run[which]
    assert old.low is not None
    assert old.high is not None
    run[which] = old.model_copy(update={"low": old.low - below, "high": old.high + above})
    after = decided(kind, allowed, how, run)
    for was, now in zip(before.gates, after.gates, strict=True):
        assert was.verdict == "PASS" or now.verdict != "PASS"


@properties
@given(kinds, points, ways, runs(), points)
def test_loosening_a_limit_never_makes_a_failure_of_a_pass(
    kind: str, allowed: int, how: str, run: list[Estimate], by: int
) -> None:
    """For the gate, for each of its results, and for the policy."""
    before, after = decided(kind, allowed, how, run), decided(kind, allowed + by, how, run)
    results = {(g.id, str(g.scope)): g.verdict for g in after.gates}
    for was in before.gates:
        if was.verdict == "PASS" and kind == "each":
            assert results[was.id, str(was.scope)] == "PASS"
    if before.verdict == "PASS":
        assert after.verdict == "PASS"
