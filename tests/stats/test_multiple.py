"""Corrections and p-values for claims of failure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sps
from statsmodels.stats.multitest import multipletests

from evalharness.stats import (
    Interval,
    cluster_ratio_t,
    exp_interval,
    holm,
    interval_p_value,
    p_value_beyond,
)


@pytest.mark.parametrize(
    "p_values", [[0.03], [0.01, 0.04, 0.03, 0.005], [0.5, 0.5, 0.001, 1.0, 0.0], [0.2, 0.9, 0.3]]
)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    """Adjusted values agree with statsmodels' multipletests."""
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms())
def test_the_order_of_the_gates_does_not_matter(p_values: list[float], random: object) -> None:
    """Shuffled p-values have the same adjusted values, shuffled."""
    order = list(range(len(p_values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = holm([p_values[i] for i in order])
    assert shuffled.tolist() == holm(p_values)[order].tolist()


def test_holm_of_nothing_is_nothing() -> None:
    """No gates, no values."""
    assert holm([]).tolist() == []


@pytest.mark.parametrize("bad", [[1.5], [-0.1], [math.nan]])
def test_values_that_are_no_probabilities_are_refused(bad: list[float]) -> None:
    """Values outside [0, 1] and NaN are errors."""
    with pytest.raises(ValueError, match="p_values: must be"):
        holm(bad)


def test_eight_gates_at_their_limits_rarely_fail_together() -> None:
    """Some gate of eight independent ones fails 5% of the time with Holm, 34% without."""
    p = np.random.default_rng(0).random((4000, 8))
    assert np.mean((p <= 0.05).any(axis=1)) == pytest.approx(0.34, abs=0.03)
    adjusted = np.array([holm(row) for row in p])
    assert np.mean((adjusted <= 0.05).any(axis=1)) == pytest.approx(0.05, abs=0.015)


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
