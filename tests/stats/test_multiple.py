"""P-values for claims of failure."""

from __future__ import annotations

import math

import pytest
from scipy import stats as sps

from evalharness.stats import (
    Interval,
    cluster_ratio_t,
    exp_interval,
    interval_p_value,
    p_value_beyond,
)


def test_the_p_value_is_students() -> None:
    """It is scipy's t tail at (value − limit)/se, or the mirror image."""
    assert p_value_beyond(0.5, 0.2, 9, 0.1, "above") == pytest.approx(sps.t.sf(2.0, 9))
    assert p_value_beyond(0.5, 0.2, 9, 0.1, "below") == pytest.approx(sps.t.cdf(2.0, 9))
    assert p_value_beyond(0.5, 0.2, math.inf, 0.1, "above") == pytest.approx(sps.norm.sf(2.0))


def test_without_error_a_value_is_beyond_or_not() -> None:
    """With se = 0 the p-value is 0 beyond the limit, 1 at it or inside."""
    got = [p_value_beyond(v, 0.0, 5, 0.1, "above") for v in (0.2, 0.1, 0.0)]
    assert got == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("value", "se", "df", "side"),
    [(math.nan, 1, 5, "above"), (0, -1, 5, "above"), (0, 1, 0, "above"), (0, 1, 5, "up")],
)
def test_impossible_arguments_are_refused(value: float, se: float, df: float, side: str) -> None:
    """NaN, a negative error, no degrees of freedom and an unknown side are errors."""
    with pytest.raises(ValueError, match="must be"):
        p_value_beyond(value, se, df, 0.0, side)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["above", "below"])
def test_an_interval_that_ends_at_the_limit_has_half_alpha(side: str) -> None:
    """The p-value is (1 − confidence)/2 exactly where the interval touches the limit."""
    ratio = exp_interval(cluster_ratio_t([0.1, 0.5, 0.2, 0.9], [3, 4, 3, 5], 0.9))
    limit = ratio.low if side == "above" else ratio.high
    assert limit is not None
    assert interval_p_value(ratio, limit, side) == pytest.approx(0.05)  # type: ignore[arg-type]


def test_on_the_identity_scale_both_p_values_agree() -> None:
    """For a t interval it is the ordinary p-value at every limit."""
    got = cluster_ratio_t([0.1, 0.5, 0.2, 0.9], [3, 4, 3, 5], 0.9)
    assert got.value is not None
    assert got.se is not None
    for limit in (-0.3, 0.0, 0.1, 0.2):
        expected = p_value_beyond(got.value, got.se, 3, limit, "above")
        assert interval_p_value(got, limit, "above") == pytest.approx(expected)


def test_no_interval_has_no_p_value() -> None:
    """Without an interval there is nothing to claim."""
    missing = Interval(0.1, None, None, 0.9, 5, 1, "m", reason="one document")
    assert interval_p_value(missing, 0.0, "above") is None
