"""What blocks of the run itself, whatever its gates say."""

from __future__ import annotations

from typing import Any

import pytest

from evalharness.gates import Decision
from evalharness.spec.result import Anomaly
from tests.gates.fakes import decided, estimate, policy, tasks

BYTES = estimate("weights.bits_per_weight", 4.0, clusters=0)
KL = estimate("kl.mean", 0.1, 0.09, 0.11)
EMPTY = estimate("kl.mean", None, clusters=0, reason="nothing was measured")
BITS = "{metric: weights.bits_per_weight, max: 5}"
WAIVER = "waivers: [{gate: kl.mean, reason: issue 3, expires: 2999-01-01}]"
BETTER = Anomaly(
    kind="better", message="up", metric="task.score.shift", scope={"task": "a", "metric": "acc"}
)


def of(gates: str, *estimates: Any, more: str = "", **known: Any) -> Decision:
    return decided(policy(f"{more}\ngates: [{gates}]\n"), *estimates, **known)


@pytest.mark.parametrize(
    ("gates", "more", "found"),
    [
        (BITS, "", (BYTES,)),  # bytes alone
        (BITS, "", (BYTES, KL)),  # also of a run that measured more
        (f"{BITS}, {{metric: kl.mean, max: 1, severity: warn}}", "", (BYTES, KL)),
        (f"{BITS}, {{metric: kl.mean, max: 1}}", WAIVER, (BYTES, EMPTY)),  # waived, and empty
        (f"{BITS}, {{metric: kl.mean, max: 1}}", WAIVER, (BYTES,)),  # waived, and missing
        (
            f"{BITS}, {{metric: kl.mean, max: 1, on_inconclusive: warn}}",
            "defaults: {on_missing: inconclusive}",
            (BYTES,),
        ),
    ],
)
def test_a_run_of_which_nothing_but_bytes_is_decided_is_incomplete(
    gates: str, more: str, found: tuple[Any, ...]
) -> None:
    """It says so, is no PASS, and blocks unless the policy lets it through."""
    decision = of(gates, *found, more=more)
    assert (decision.verdict, decision.exit_code) == ("INCONCLUSIVE", 3)
    assert decision.headline.startswith("The run is incomplete for this policy: no gate that could")
    assert decision.objections == [decision.headline]
    through = of(gates, *found, more=f"on_incomplete: warn\n{more}")
    assert (through.verdict, through.exit_code) == ("INCONCLUSIVE", 0)
    assert (through.headline, through.objections) == (decision.headline, [])


@pytest.mark.parametrize("severity", ["warn", "info"])
def test_a_policy_of_which_no_gate_can_block_decides_nothing(severity: str) -> None:
    """So that it is not green either, unless it says that it only reports."""
    rule = f"{{metric: kl.mean, max: 1, severity: {severity}}}"
    decision = of(rule, KL)
    assert (decision.verdict, decision.exit_code) == ("INCONCLUSIVE", 3)
    assert decision.objections == [decision.headline]
    assert decision.headline.startswith("No gate has severity error")
    through = of(rule, KL, more="on_incomplete: warn")
    assert (through.verdict, through.exit_code, through.objections) == ("INCONCLUSIVE", 0, [])


def test_a_loss_that_was_measured_and_is_waived_completes_a_run() -> None:
    """Somebody looked at it and accepted it."""
    decision = of(f"{BITS}, {{metric: kl.mean, max: 0.01}}", BYTES, KL, more=WAIVER)
    assert (decision.verdict, decision.exit_code, decision.objections) == ("PASS", 0, [])


def test_a_fail_on_bytes_is_a_fail() -> None:
    """What is known to be wrong needs nothing else."""
    decision = of("{metric: weights.bits_per_weight, max: 3}", BYTES)
    assert (decision.verdict, decision.exit_code, decision.objections) == ("FAIL", 1, [])


@pytest.mark.parametrize("more", ["", ", {metric: task.score.shift, min: -1, severity: warn}"])
def test_an_anomaly_that_no_gate_answers_for_is_the_runs(more: str) -> None:
    """However few gates a policy has, nothing is green beside an anomaly."""
    found = (KL, *tasks(("a", 0.1, 0.2)))
    decision = of("{metric: kl.mean, max: 1}" + more, *found, anomalies=[BETTER])
    assert (decision.verdict, decision.exit_code) == ("ANOMALOUS", 3)
    assert decision.objections == ["The run cannot be trusted: up."]


def test_a_gate_that_answers_for_an_anomaly_decides_whether_it_blocks() -> None:
    """By its own `on_anomalous`."""
    rule = "{{metric: task.score.shift, min: -1, on_anomalous: {}}}, {{metric: kl.mean, max: 1}}"
    found = (KL, *tasks(("a", 0.1, 0.2)))
    for word, code in (("block", 3), ("warn", 0)):
        decision = of(rule.format(word), *found, anomalies=[BETTER])
        assert (decision.verdict, decision.exit_code) == ("ANOMALOUS", code)
        assert decision.objections == []
