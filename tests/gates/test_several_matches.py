"""A gate whose scope matches several estimates, and Holm's correction over all tests."""

from __future__ import annotations

import pytest
from scipy import stats as scipy_stats

from evalharness.spec.estimate import Estimate
from tests.gates.fakes import decided, estimate, gate, only, policy, tasks

# -- several matches


def test_without_each_all_matches_must_pass_and_the_worst_is_shown() -> None:
    """One bad task cannot hide behind the others."""
    result = only(
        "id: drop, metric: task.score.shift, scope: {task: arc_*}, min: -1pp",
        *tasks(
            ("arc_a", 0, 0.01), ("arc_b", -0.2, -0.1), ("arc_c", -0.02, 0), ("mmlu", -0.5, -0.4)
        ),
    )
    assert (result.id, result.verdict, result.scope) == (
        "drop",
        "FAIL",
        {"task": "arc_b", "metric": "acc"},
    )
    assert result.reason.endswith("The worst of 3: 1 FAIL, 1 INCONCLUSIVE, 1 PASS.")


def test_each_gives_one_result_a_match() -> None:
    """With the scope in its id, and the rule's id beside it."""
    decision = decided(
        gate("id: drop, metric: task.score.shift, min: -1pp, each: true"),
        *tasks(("a", 0, 0.01), ("b", -0.2, -0.1)),
    )
    assert [(g.id, g.rule, g.verdict) for g in decision.gates] == [
        ("drop[task=a,metric=acc]", "drop", "PASS"),
        ("drop[task=b,metric=acc]", "drop", "FAIL"),
    ]
    assert decision.headline == "1 of 2 gates fails: drop[task=b,metric=acc]."


def test_the_mean_of_scopes_that_share_documents_is_no_narrower_than_they_are() -> None:
    """Their errors may agree fully: half-widths are averaged."""
    result = only(
        "metric: nll.shift, scope: {slice: '*'}, max: 0.03, aggregate: mean",
        estimate("nll.shift", 0.02, 0.0, 0.04, scope={"slice": "a"}, confidence=0.9),
        estimate("nll.shift", 0.0, -0.02, 0.02, scope={"slice": "b"}, confidence=0.9),
    )
    assert (result.observed, result.low, result.high) == pytest.approx((0.01, -0.01, 0.03))
    assert (result.verdict, result.worst) == ("PASS", "slice=a at 0.02")


def test_the_mean_of_different_tasks_is_surer_than_each() -> None:
    """Half-widths are added in squares: √2·.02/2."""
    result = only(
        "metric: task.score.shift, scope: {task: '*'}, min: -3pp, aggregate: mean",
        *tasks(("a", -0.04, 0.0), ("b", -0.02, 0.02)),
    )
    half = 0.02 / 2**0.5
    found = (result.observed, result.low, result.high)
    assert found == pytest.approx((-0.01, -0.01 - half, -0.01 + half))
    assert (result.verdict, result.worst) == ("PASS", "task=a, metric=acc at -0.02")


def test_a_mean_over_a_missing_part_is_inconclusive() -> None:
    """Never average a NaN, never leave it out."""
    scope = {"task": "b", "metric": "acc"}
    result = only(
        "metric: task.score.shift, min: -3pp, aggregate: mean",
        *tasks(("a", 0.0, 0.0)),
        estimate("task.score.shift", None, reason="NaN", scope=scope),
    )
    assert result.verdict == "INCONCLUSIVE"
    assert "it was not computed (task=b, metric=acc: NaN)" in result.reason


def test_the_broadest_scope_that_exists_is_meant() -> None:
    """Over everything, not once more for each corpus."""
    estimates = (
        estimate("kl.mean", 0.01, 0.01, 0.01),
        estimate("kl.mean", 9.0, 9.0, 9.0, scope={"corpus": "code"}),
    )
    assert only("metric: kl.mean, max: 1", *estimates).verdict == "PASS"
    assert only("metric: kl.mean, scope: {corpus: code}, max: 1", *estimates).verdict == "FAIL"


# -- Holm


def _border(metric: str, low: float) -> Estimate:
    """A shift whose lower end is just above a limit of 0, so that p is just below 0.05."""
    return estimate(metric, low + 0.1, low, low + 0.2, confidence=0.9)


def test_one_failure_by_a_hair_among_many_tests_is_withdrawn() -> None:
    """Eight gates at their limits would FAIL somewhere a third of the time."""
    text = "gates:\n  - {metric: nll.shift, max: 0}\n"
    alone = decided(policy(text), _border("nll.shift", 0.001))
    assert (alone.gates[0].verdict, alone.exit_code) == ("FAIL", 1)

    text += "  - {metric: kl.mean, max: 1}\n"
    both = decided(policy(text), _border("nll.shift", 0.001), estimate("kl.mean", 0.1, 0.05, 0.2))
    assert (both.gates[0].verdict, both.exit_code) == ("INCONCLUSIVE", 3)
    assert "2 limits are tested, and after Holm's correction it takes p at most 0.025" in (
        both.gates[0].reason
    )
    assert (both.gates[0].further_documents or 0) > 0


def test_a_clear_failure_survives_the_correction() -> None:
    """And the others are then tested against fewer."""
    text = "gates:\n  - {metric: nll.shift, max: 0}\n  - {metric: brier.shift, max: 0}\n"
    clear = estimate("nll.shift", 0.5, 0.4, 0.6, confidence=0.9)
    decision = decided(policy(text), clear, _border("brier.shift", 0.001))
    assert [g.verdict for g in decision.gates] == ["FAIL", "FAIL"]


def test_gates_that_only_warn_do_not_weaken_those_that_block() -> None:
    """They are a family of their own."""
    text = (
        "gates:\n  - {metric: nll.shift, max: 0}\n  - {metric: kl.mean, max: 1, severity: warn}\n"
    )
    decision = decided(
        policy(text), _border("nll.shift", 0.001), estimate("kl.mean", 0.1, 0.05, 0.2)
    )
    assert decision.gates[0].verdict == "FAIL"


def test_a_gate_over_many_layers_weighs_as_one_gate() -> None:
    """Two gates, whatever the second matches: the first is tested at 0.025, and not at 0.05/31."""
    text = "gates:\n  - {metric: nll.shift, max: 0}\n  - {metric: layer.error.total, max: 1}\n"
    half = 0.1
    t = float(scipy_stats.t.ppf(0.95, 63))
    shift = half * float(scipy_stats.t.ppf(1 - 0.02, 63)) / t  # p = 0.02
    layers = [
        estimate("layer.error.total", 0.1, 0.05, 0.15, scope={"layer": f"h.{i}"}) for i in range(30)
    ]
    one = estimate("nll.shift", shift, shift - half, shift + half, confidence=0.9)
    assert decided(policy(text), one, *layers).gates[0].verdict == "FAIL"


def test_verdicts_that_are_no_tests_are_not_counted() -> None:
    """A count of bytes has no p-value."""
    text = (
        "gates:\n  - {metric: nll.shift, max: 0}\n  - {metric: weights.bits_per_weight, max: 4}\n"
    )
    bits = estimate("weights.bits_per_weight", 5.0, clusters=0)
    decision = decided(policy(text), _border("nll.shift", 0.001), bits)
    assert [g.verdict for g in decision.gates] == ["FAIL", "FAIL"]
