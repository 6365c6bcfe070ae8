"""Gates on times: how many processes they take, and what is said of too few."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalharness.errors import InputError
from evalharness.gates import check_processes, load_baseline, save_baseline
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import GateResult
from evalharness.stats import PROCESSES
from tests.gates.fakes import decided, estimate, gate, only, policy

METRIC = "latency.decode.ratio"
ONE = "within this run, in one process"
METHOD = f"{PROCESSES} (log)"


@pytest.mark.parametrize("more", ["", ", decide: not-worse", ", decide: point"])
@pytest.mark.parametrize("value", [0.1, 100.0])
def test_one_process_decides_nothing(value: float, more: str) -> None:
    """Neither PASS nor FAIL, however clear it looks; the reason says what to set."""
    one = estimate(METRIC, value, clusters=1, reason=ONE)
    result = only(f"metric: {METRIC}, max: 1{more}", one)
    assert (result.verdict, result.further_documents) == ("INCONCLUSIVE", 2)
    assert (
        "it rests on 1 of the 3 fresh processes it takes, latency.decode.ratio's own minimum "
        "(within this run"
    ) in result.reason
    assert "About 2 more fresh processes would settle it." in result.reason


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [((0.7, 0.9), "PASS"), ((1.1, 1.3), "FAIL"), ((0.9, 1.3), "INCONCLUSIVE")],
)
def test_three_processes_decide(ends: tuple[float, float], verdict: str) -> None:
    """Whatever number of documents the policy asks of its gates."""
    three = estimate(METRIC, sum(ends) / 2, *ends, clusters=3, method=METHOD)
    text = f"defaults: {{min_n: 30}}\ngates: [{{metric: {METRIC}, max: 1}}]"
    (result,) = decided(policy(text), three).gates
    assert result.verdict == verdict


def test_a_gate_may_ask_for_more_processes_of_its_own() -> None:
    """Its own min_n counts them, and cannot ask for fewer than three."""
    three = estimate(METRIC, 0.8, 0.7, 0.9, clusters=3, method=METHOD)
    asked = only(f"metric: {METRIC}, max: 1, min_n: 5", three)
    assert asked.verdict == "INCONCLUSIVE"
    assert "3 of the 5 fresh processes it takes, the policy's min_n" in asked.reason
    two = estimate(METRIC, 0.8, 0.7, 0.9, clusters=2, method=METHOD)
    assert only(f"metric: {METRIC}, max: 1, min_n: 2", two).verdict == "INCONCLUSIVE"


def test_what_was_not_measured_passes_nothing() -> None:
    """A process that died says so in the gate's reason."""
    none = estimate(METRIC, None, clusters=0, reason="not measured: process 2 of 3 ended")
    result = only(f"metric: {METRIC}, max: 1", none)
    assert result.verdict == "INCONCLUSIVE"
    assert "not measured: process 2 of 3 ended" in result.reason


def test_a_looser_limit_is_not_earned_by_one_process() -> None:
    """As a condition of a trade-off it is undecided, so that the gate is no PASS."""
    gate = (
        "metric: perplexity.ratio, max: 1.02, unless: {max: 1.05, any: "
        f"[{{metric: {METRIC}, max: 0.7}}]}}"
    )
    shift = estimate("perplexity.ratio", 1.035, 1.03, 1.04)
    one = estimate(METRIC, 0.1, clusters=1, reason=ONE)
    assert only(gate, shift, one).verdict == "INCONCLUSIVE"
    three = estimate(METRIC, 0.6, 0.55, 0.65, clusters=3, method=METHOD)
    assert only(gate, shift, three).verdict == "PASS"
    documents = gate.replace("max: 1.02", "max: 1.02, min_n: 30")  # are no processes
    assert only(documents, shift, three).verdict == "PASS"


def test_a_suite_of_one_process_is_refused_where_the_gate_would_block() -> None:
    """With file and line, and what to set."""
    with pytest.raises(InputError) as caught:
        check_processes(policy(f"gates:\n  - metric: {METRIC}\n    max: 1"), 1)
    assert caught.value.line == 2
    assert str(caught.value).endswith(
        "gates[0].metric: latency.decode.ratio is decided over 3 fresh processes or more, and this "
        "suite measures it in 1: the gate could only be INCONCLUSIVE. Set `latency: {processes: "
        "3}` in the suite (each of them loads both models again), or give the gate severity: warn."
    )


@pytest.mark.parametrize(
    ("gate", "processes", "said"),
    [
        (f"metric: {METRIC}, max: 1, severity: warn", 1, "this suite measures it in 1, which"),
        (f"metric: {METRIC}, max: 1, on_inconclusive: warn", 1, "set `latency: {processes: 3}`"),
        (f"metric: {METRIC}, max: 1, min_n: 5, severity: warn", 3, "over 5 fresh processes"),
        (f"metric: {METRIC}, max: 1", None, "this suite has no probe `latency`: add it"),
        ("metric: latency.prefill.ratio, max: 1", None, "this suite has no probe `latency`"),
        (
            "metric: nll.shift, max: .02, unless: {max: .03, any: [{metric: "
            f"{METRIC}, max: 0.7}}]}}",
            1,
            "its looser limit is not earned by latency.decode.ratio",
        ),
    ],
)
def test_what_does_not_block_is_said(gate: str, processes: int | None, said: str) -> None:
    """Before a model is loaded."""
    (note,) = check_processes(policy(f"gates: [{{{gate}}}]"), processes)
    assert said in note


@pytest.mark.parametrize("processes", [3, 5])
def test_enough_processes_need_no_word(processes: int) -> None:
    """Nor do gates on anything else."""
    text = f"gates: [{{metric: {METRIC}, max: 1}}, {{metric: kl.mean, max: 1, min_n: 30}}]"
    assert check_processes(policy(text), processes) == []


IDENTITY = {"data": "d", "tokenizer": "t", "metrics": "m"}


def against(path: Path, stored: Estimate, decide: str = "confident") -> GateResult:
    """Three processes of this run at 1, held against a stored value that may grow by a half."""
    save_baseline(path / "b.json", "runs/main", IDENTITY, [stored])
    now = estimate(METRIC, 1.0, 0.99, 1.01, clusters=3, method=METHOD)
    (result,) = decided(
        gate(f"metric: {METRIC}, max: 50%, relative_to: baseline, decide: {decide}"),
        now,
        baseline=load_baseline(path / "b.json"),
        identity=IDENTITY,
    ).gates
    return result


@pytest.mark.parametrize("decide", ["confident", "not-worse", "point"])
@pytest.mark.parametrize("method", ["skewness-adjusted cluster jackknife t", "within this run"])
def test_a_stored_value_of_one_process_is_no_limit(
    tmp_path: Path, method: str, decide: str
) -> None:
    """Though an earlier version stored it with an interval, of the batches of that process."""
    ends = (0.99, 1.01) if "jack" in method else (None, None)
    old = estimate(METRIC, 1.0, *ends, clusters=21, method=method, reason="of one process")
    result = against(tmp_path, old, decide)
    assert result.verdict == "INCONCLUSIVE"
    assert "the limit is not known" in result.reason


def test_a_stored_value_of_three_is_judged_with_both_errors(tmp_path: Path) -> None:
    """Both are small beside half of the stored value."""
    stored = estimate(METRIC, 1.0, 0.99, 1.01, clusters=3, method=METHOD)
    assert against(tmp_path, stored).verdict == "PASS"
