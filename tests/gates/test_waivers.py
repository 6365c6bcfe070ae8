"""Waivers by date, by scope and by cap."""

from __future__ import annotations

import datetime as dt

import pytest

from evalharness.gates import Decision, decide, explain
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import Anomaly
from tests.gates.fakes import FakeEstimates, estimate, policy

TODAY = dt.date(2026, 3, 1)
FAILING = estimate("kl.mean", 0.09, 0.08, 0.10)
TEXT = (
    "gates:\n  - {id: kl, metric: kl.mean, max: 0.05}\n"
    "waivers:\n  - {gate: kl, reason: issue 12, expires: 2026-06-01}\n"
)
PASSING = estimate("kl.mean", 0.01, 0.01, 0.01)


def waived(extra: str = "", *, expires: str = "2026-06-01", one: Estimate = FAILING) -> Decision:
    """A gate of kl.mean at most 0.05, with one waiver."""
    text = (
        "gates:\n  - {id: kl, metric: kl.mean, max: 0.05}\n"
        f"waivers:\n  - {{gate: kl, reason: issue 12, expires: {expires}{extra}}}\n"
    )
    return decide(policy(text), FakeEstimates(one), today=TODAY)


@pytest.mark.parametrize(
    ("expires", "state", "code", "warning"),
    [
        ("2026-06-01", "active", 0, None),
        ("2026-03-16", "active", 0, None),
        ("2026-03-15", "expiring", 0, "expires on 2026-03-15, in 14 days"),
        ("2026-03-01", "expiring", 0, "expires on 2026-03-01, in 0 days"),
        ("2026-02-28", "expired", 1, None),
    ],
)
def test_a_waiver_holds_through_its_last_day(
    expires: str, state: str, code: int, warning: str | None
) -> None:
    """It warns for 14 days, and then the gate fails again."""
    decision = waived(expires=expires)
    assert [w.state for w in decision.waivers] == [state]
    assert decision.exit_code == code
    expected = [] if warning is None else [f"waiver of kl (issue 12): {warning}"]
    assert decision.warnings == expected


def test_a_waived_gate_keeps_its_verdict_and_does_not_block() -> None:
    """What was measured is shown, with who accepted it."""
    decision = waived(", owner: ann")
    (result,) = decision.gates
    assert (result.verdict, result.blocking, result.waiver) == ("FAIL", False, "issue 12")
    assert result.reason.endswith("Waived until 2026-06-01 (ann): issue 12")
    assert (decision.verdict, decision.headline) == ("PASS", "0 of 1 gate pass, 1 waived.")


def test_an_expired_waiver_is_named_where_it_is_missed() -> None:
    """So that nobody wonders why yesterday was green."""
    decision = waived(expires="2026-02-28")
    (gate,) = decision.gates
    assert gate.reason.endswith("Its waiver (issue 12; owner: none) expired on 2026-02-28.")
    assert gate.waiver is None


@pytest.mark.parametrize(
    ("one", "own", "why"),
    [
        (PASSING, "PASS", "nothing needs it now: remove it."),
        (
            estimate("kl.mean", 0.05, 0.04, 0.06),
            "INCONCLUSIVE",
            "the gate does not pass without it: renew it with a new date, or remove it.",
        ),
    ],
)
def test_an_expired_waiver_fails_whatever_its_gate_does(one: Estimate, own: str, why: str) -> None:
    """With a row of its own, at the waiver's line, that names reason, owner and date."""
    decision = waived(", owner: ann", expires="2026-02-28", one=one)
    gate, row = decision.gates
    assert (gate.verdict, row.verdict, row.blocking, row.line) == (own, "FAIL", True, 4)
    assert row.id == "waiver of kl"
    assert row.reason == f"The waiver of kl (issue 12; owner: ann) expired on 2026-02-28, and {why}"
    assert (decision.verdict, decision.exit_code) == ("FAIL", 1)
    assert "In full:   The waiver of kl" in explain(row, policy(TEXT))


def test_an_expired_waiver_of_a_gate_that_warns_does_not_block() -> None:
    """It blocks as its gate would."""
    text = TEXT.replace("0.05}", "0.05, severity: warn}").replace("2026-06-01", "2026-02-28")
    more = text.replace("waivers", "  - {metric: top1.agreement, min: 90%}\nwaivers")
    top1 = estimate("top1.agreement", 0.95, 0.94, 0.96)
    decision = decide(policy(more), FakeEstimates(PASSING, top1), today=TODAY)
    assert (decision.verdict, decision.exit_code) == ("PASS", 0)
    assert decision.gates[-1].verdict == "FAIL"


def test_an_unused_waiver_warns() -> None:
    """It waits to hide the next regression."""
    decision = waived(one=PASSING)
    assert [w.state for w in decision.waivers] == ["unused"]
    assert decision.warnings == ["waiver of kl (issue 12): unused, the gate passes without"]


@pytest.mark.parametrize(("cap", "code"), [("0.10", 0), ("0.099", 1), ("0.07", 1)])
def test_a_capped_waiver_holds_only_while_the_cap_is_kept(cap: str, code: int) -> None:
    """Kept with the same confidence: the whole interval inside the cap."""
    decision = waived(f", max: {cap}")
    assert decision.exit_code == code
    if code:
        assert decision.gates[0].reason.endswith(
            f"Its waiver holds up to {float(cap):g} only, which this does not keep."
        )
        assert decision.warnings == ["waiver of kl (issue 12): unused, its cap is not kept"]


def test_a_waiver_of_some_matches_leaves_the_others_to_fail() -> None:
    """And what it covers is shown only when nothing else is wrong."""
    text = """
        gates:
          - {id: drop, metric: task.score.shift, min: -1pp}
        waivers:
          - {gate: drop, match: {task: a}, reason: known, expires: 2026-06-01}
    """

    def run(b: tuple[float, float]) -> Decision:
        tasks = {"a": (-0.2, -0.1), "b": b}
        estimates = [
            estimate(
                "task.score.shift", sum(ends) / 2, *ends, scope={"task": name, "metric": "acc"}
            )
            for name, ends in tasks.items()
        ]
        return decide(policy(text), FakeEstimates(*estimates), today=TODAY)

    both = run((-0.15, -0.05))
    assert (both.exit_code, both.gates[0].scope["task"]) == (1, "b")
    one = run((0.0, 0.01))
    assert (one.exit_code, one.gates[0].scope["task"], one.gates[0].waiver) == (0, "a", "known")


def test_untrustworthy_data_cannot_be_waived() -> None:
    """A waiver accepts a loss that is known; here nothing is known."""
    text = (
        "gates:\n  - {id: kl, metric: kl.mean, max: 0.05}\n"
        "waivers:\n  - {gate: kl, reason: issue 12, expires: 2026-06-01}\n"
    )
    nan = Anomaly(kind="nan", message="NaN")
    decision = decide(policy(text), FakeEstimates(PASSING), today=TODAY, anomalies=[nan])
    assert (decision.verdict, decision.exit_code) == ("ANOMALOUS", 3)
