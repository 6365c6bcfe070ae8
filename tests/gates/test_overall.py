"""The whole policy: its verdict and exit code, and what is too good to be true."""

from __future__ import annotations

import pytest

from evalharness.gates import doubts, find_anomalies
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import Anomaly
from tests.gates.fakes import FakeEstimates, decided, estimate, gate, policy, tasks

# -- the whole policy


@pytest.mark.parametrize(
    ("settings", "low", "verdict", "code"),
    [
        ("", 0.01, "PASS", 0),
        ("", 0.03, "INCONCLUSIVE", 3),
        ("", 0.06, "FAIL", 1),
        ("on_inconclusive: warn", 0.03, "INCONCLUSIVE", 0),
        ("severity: warn", 0.01, "INCONCLUSIVE", 3),  # nothing can block: nothing is decided
    ],
)
def test_exit_codes(settings: str, low: float, verdict: str, code: int) -> None:
    """The verdict says what is known, the code whether the policy blocks on it."""
    decision = decided(
        gate(f"metric: kl.mean, max: 0.05, {settings}"),
        estimate("kl.mean", low + 0.015, low, low + 0.03),
    )
    assert (decision.verdict, decision.exit_code) == (verdict, code)


def test_a_warning_gate_warns_and_does_not_block() -> None:
    """It is told beside a PASS."""
    text = (
        "gates:\n  - {metric: kl.mean, max: 1}\n  - {metric: nll.shift, max: 0, severity: warn}\n"
    )
    decision = decided(
        policy(text), estimate("kl.mean", 0.1, 0.1, 0.1), estimate("nll.shift", 0.3, 0.2, 0.4)
    )
    assert (decision.verdict, decision.exit_code) == ("PASS", 0)
    assert decision.headline == "1 of 2 gates passes, 1 without blocking."
    assert decision.warnings == ["nll.shift: FAIL, which does not block here"]


def test_an_anomaly_of_the_run_takes_every_pass_back() -> None:
    """But not what is counted from the weights, and not a FAIL."""
    text = """
        gates:
          - {metric: kl.mean, max: 1}
          - {metric: nll.shift, max: 0}
          - {metric: weights.bits_per_weight, max: 5}
    """
    nan = Anomaly(kind="nan", message="NaN logits in window 3 of the candidate")
    estimates = (
        estimate("kl.mean", 0.1, 0.1, 0.1),
        estimate("nll.shift", -0.1, -0.1, -0.1),
        estimate("weights.bits_per_weight", 4.0, clusters=0),
    )
    decision = decided(policy(text), *estimates, anomalies=[nan])
    assert [g.verdict for g in decision.gates] == ["ANOMALOUS", "ANOMALOUS", "PASS"]
    assert (decision.verdict, decision.exit_code) == ("ANOMALOUS", 3)
    assert decision.headline == (
        "The run cannot be trusted: NaN logits in window 3 of the candidate."
    )
    failing = (estimates[0], estimate("nll.shift", 0.5, 0.4, 0.6), estimates[2])
    assert decided(policy(text), *failing, anomalies=[nan]).exit_code == 1


def test_an_anomaly_can_be_let_through() -> None:
    """The verdict stays, the exit code does not."""
    nan = Anomaly(kind="nan", message="NaN")
    text = "defaults: {on_anomalous: warn}\ngates:\n  - {metric: kl.mean, max: 1}\n"
    decision = decided(policy(text), estimate("kl.mean", 0.1, 0.1, 0.1), anomalies=[nan])
    assert (decision.verdict, decision.exit_code) == ("ANOMALOUS", 0)


def test_an_anomaly_of_one_task_touches_that_task_only() -> None:
    """The others were measured on other items."""
    better = Anomaly(
        kind="better", message="up", metric="task.score.shift", scope={"task": "a", "metric": "acc"}
    )
    decision = decided(
        gate("metric: task.score.shift, min: -1pp, each: true"),
        *tasks(("a", 0.1, 0.2), ("b", 0, 0)),
        anomalies=[better],
    )
    assert [g.verdict for g in decision.gates] == ["ANOMALOUS", "PASS"]


# -- too good to be true


def test_no_divergence_of_a_compressed_candidate_is_anomalous() -> None:
    """Was the reference loaded twice?"""
    same = FakeEstimates(estimate("kl.mean", 0.0, 0.0, 0.0))
    assert [a.kind for a in find_anomalies(same, compressed=True)] == ["no_divergence"]
    assert find_anomalies(same, compressed=False) == []
    assert find_anomalies(FakeEstimates(estimate("kl.mean", 1e-9, 0, 1e-8)), compressed=True) == []


def test_no_divergence_is_seen_in_a_suite_of_tasks_alone() -> None:
    """All of them must be exactly 0; where there are texts, those decide."""
    zero = [estimate("kl.mean", 0.0, 0.0, 0.0, scope={"task": t}) for t in "ab"]
    other = estimate("kl.mean", 0.1, 0.0, 0.2, scope={"task": "c"})
    (found,) = find_anomalies(FakeEstimates(*zero), compressed=True)
    assert found.kind == "no_divergence"
    assert f"over {zero[0].n + zero[1].n:,} tokens" in found.message
    assert find_anomalies(FakeEstimates(*zero, other), compressed=True) == []
    texts = estimate("kl.mean", 0.1, 0.0, 0.2)
    assert find_anomalies(FakeEstimates(texts, *zero), compressed=True) == []


def _with_score(score: float, *shifts: Estimate) -> FakeEstimates:
    """Shifts of tasks, the reference scoring the same on each."""
    own = [estimate("task.score.reference", score, scope=shift.scope) for shift in shifts]
    return FakeEstimates(*shifts, *own)


def test_a_task_that_gains_beyond_noise_is_anomalous() -> None:
    """An interval that holds 0 is noise; one far above it is not."""
    found = _with_score(0.5, *tasks(("a", 0.05, 0.15), ("b", -0.01, 0.3)))
    better, *rest = find_anomalies(found, compressed=True)
    assert (better.metric, better.scope, rest) == (
        "task.score.shift",
        {"task": "a", "metric": "acc"},
        [],
    )
    assert better.message == (
        "the score of task=a, metric=acc is better by 0.1, at least 0.05 beyond noise: compression "
        "does not add ability"
    )
    assert doubts(found, compressed=True) == []
    assert find_anomalies(found, compressed=False) == []


@pytest.mark.parametrize(
    ("low", "high", "items", "why"),
    [
        # Bits per byte of 12 texts, 1% better: a near-lossless candidate at 8 bits.
        (0.006, 0.014, 12, "12 items are fewer than the 50 that it takes"),
        (0.3, 0.5, 49, "49 items are fewer than the 50 that it takes"),
        (0.006, 0.014, 5000, "it may be no more than 0.006, and 0.05 would be too good"),
    ],
)
def test_a_small_gain_or_one_on_few_items_is_a_warning(
    low: float, high: float, items: int, why: str
) -> None:
    """Significance alone says that something moved, and not that the run cannot be trusted."""
    scope = {"task": "wiki", "metric": "bits_per_byte"}
    shift = estimate("task.score.shift", 0.01, low, high, clusters=items, scope=scope)
    found = _with_score(1.0, shift)
    assert find_anomalies(found, compressed=True) == []
    assert doubts(found, compressed=True) == [
        "the score of task=wiki, metric=bits_per_byte is better by 0.01 than the reference's, "
        f"beyond noise; it decides nothing here, since {why}"
    ]
    assert doubts(found, compressed=False) == []
