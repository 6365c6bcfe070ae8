"""Limits relative to the reference's own value, and looser limits that must be earned."""

from __future__ import annotations

import pytest

from tests.gates.fakes import decided, estimate, only, policy


def _relative(shift: tuple[float, float], own: tuple[float, float, float]) -> str:
    scope = {"task": "a", "metric": "acc"}
    low, high = shift
    return only(
        "metric: task.score.shift, min: -2%, relative_to: reference",
        estimate("task.score.shift", (low + high) / 2, low, high, scope=scope),
        estimate("task.score.reference", own[1], own[0], own[2], scope=scope),
    ).verdict


def test_a_limit_relative_to_the_reference_carries_its_error() -> None:
    """2% of a score between 0.4 and 0.6 is 0.008 … 0.012: PASS needs the one, FAIL the other."""
    own = (0.4, 0.5, 0.6)
    assert _relative((-0.008, 0.0), own) == "PASS"
    assert _relative((-0.009, 0.0), own) == "INCONCLUSIVE"
    assert _relative((-0.02, -0.011), own) == "INCONCLUSIVE"
    assert _relative((-0.02, -0.0121), own) == "FAIL"


def test_a_reference_without_an_interval_gives_no_limit() -> None:
    """What is not known cannot be kept."""
    scope = {"task": "a", "metric": "acc"}
    result = only(
        "metric: task.score.shift, min: -2%, relative_to: reference",
        estimate("task.score.shift", 0.0, 0.0, 0.0, scope=scope),
        estimate("task.score.reference", 0.5, scope=scope, reason="not a mean"),
    )
    assert result.verdict == "INCONCLUSIVE"
    assert (
        "the limit is not known: task.score.reference has no interval: not a mean" in result.reason
    )


TRADE_OFF = """
    gates:
      - metric: perplexity.ratio
        max: 1.02
        unless:
          max: 1.05
          any:
            - {metric: weights.bits_per_weight, max: 4.5}
            - {metric: latency.decode.ratio, max: 0.7}
"""


@pytest.mark.parametrize(
    ("bits", "ratio", "verdict"),
    [
        (4.2, (1.03, 1.04), "PASS"),
        (4.2, (1.06, 1.07), "FAIL"),
        (8.0, (1.00, 1.01), "PASS"),
        (8.0, (1.03, 1.04), "FAIL"),
    ],
)
def test_a_looser_limit_holds_only_when_it_is_earned(
    bits: float, ratio: tuple[float, float], verdict: str
) -> None:
    """At most 2% worse, or 5% where it takes at most 4.5 bits or 0.7 of the time."""
    decision = decided(
        policy(TRADE_OFF),
        estimate("perplexity.ratio", sum(ratio) / 2, *ratio),
        estimate("weights.bits_per_weight", bits, clusters=0),
        estimate("latency.decode.ratio", 1.2, 1.1, 1.3),
    )
    assert decision.gates[0].verdict == verdict


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [((1.00, 1.01), "PASS"), ((1.03, 1.04), "INCONCLUSIVE"), ((1.06, 1.07), "FAIL")],
)
def test_between_the_two_limits_an_undecided_condition_leaves_it_undecided(
    ratio: tuple[float, float], verdict: str
) -> None:
    """Latency was not measured, so nobody knows whether it was earned."""
    decision = decided(
        policy(TRADE_OFF),
        estimate("perplexity.ratio", sum(ratio) / 2, *ratio),
        estimate("weights.bits_per_weight", 8.0, clusters=0),
    )
    assert decision.gates[0].verdict == verdict


def test_what_earned_the_looser_limit_is_said() -> None:
    """A PASS at 1.04 under a limit of 1.02 would puzzle."""
    decision = decided(
        policy(TRADE_OFF),
        estimate("perplexity.ratio", 1.035, 1.03, 1.04),
        estimate("weights.bits_per_weight", 4.2, clusters=0),
    )
    assert decision.gates[0].reason == (
        "perplexity.ratio is 1.035 [1.03, 1.04]; inside the limit: at most 1.05 (not 1.02: earned "
        "by weights.bits_per_weight of 4.2)."
    )
    assert decision.gates[0].threshold == 1.05
