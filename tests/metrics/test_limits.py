"""No interval reaches beyond what its quantity can be."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from evalharness.metrics import REGISTRY, Estimates
from evalharness.stats import Interval, within
from evalharness.testing import Tables, synthetic

Make = Callable[[Tables], Estimates]


@pytest.mark.parametrize(("documents", "damage"), [(3, 0.2), (3, 3.0), (4, 0.02), (12, 0.5)])
@pytest.mark.parametrize("confidence", [0.9, 0.998])
def test_every_interval_lies_within_its_metric_s_limits(
    estimates: Make, documents: int, damage: float, confidence: float
) -> None:
    """Few documents and much confidence make intervals wide: an agreement of 1.006, a score < 0."""
    found = estimates(synthetic(documents, damage=damage))
    seen = 0
    for id, metric in REGISTRY.items():
        low, high = metric.limits
        for scope in found.scopes(id):
            e = found.estimate(id, scope, confidence)
            if e.value is None or e.low is None or e.high is None:
                continue
            seen += 1
            assert low <= e.low <= e.high <= high, (id, scope)
            assert e.low <= e.value <= e.high or "reflected" in e.method, (id, scope)
    assert seen > 40


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("top1.agreement", (0, 1)),
        ("brier.shift", (-1, 1)),
        ("perplexity.ratio", (0, math.inf)),
        ("layer.error.own", (0, math.inf)),
        ("nll.shift", (-math.inf, math.inf)),
    ],
)
def test_a_metric_s_limits_follow_from_its_unit(metric: str, expected: tuple[float, float]) -> None:
    """A share, the difference of two, a ratio, a norm, a difference of losses."""
    assert REGISTRY[metric].limits == expected


def interval(value: float | None, low: float | None, high: float | None) -> Interval:
    """An interval of no matter which estimator."""
    return Interval(value, low, high, 0.95, 9, 9, "t", reason="none" if low is None else None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((0.9, 0.8, 1.006), (0.9, 0.8, 1.0)),
        ((0.1, -0.02, 0.3), (0.1, 0.0, 0.3)),
        ((1.2, 1.1, 1.3), (1.2, 1.1, 1.3)),  # no share: left as it is
        ((0.5, None, None), (0.5, None, None)),
    ],
)
def test_what_lies_outside_is_cut_off(
    before: tuple[float | None, ...], after: tuple[float | None, ...]
) -> None:
    """And nothing else changes."""
    assert within(interval(*before), 0, 1) == interval(*after)  # type: ignore[arg-type]
