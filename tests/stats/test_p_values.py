"""P-values for claims of failure."""

from __future__ import annotations

import pytest
from scipy import stats as sps

from evalharness.stats import (
    Interval,
    cluster_ratio_t,
    exp_interval,
    interval_p_value,
)


def test_without_width_a_value_is_beyond_or_not() -> None:
    """The p-value is 0 beyond the limit, 1 at it or inside."""
    exact = [Interval(v, v, v, 0.9, 9, 6, "m", 0.0) for v in (0.2, 0.1, 0.0)]
    assert [interval_p_value(e, 0.1, "above") for e in exact] == [0.0, 1.0, 1.0]
    assert [interval_p_value(e, 0.1, "below") for e in exact] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("side", ["above", "below"])
def test_an_interval_that_ends_at_the_limit_has_half_alpha(side: str) -> None:
    """The p-value is (1 − confidence)/2 exactly where the interval touches the limit."""
    ratio = exp_interval(cluster_ratio_t([0.1, 0.5, 0.2, 0.9], [3, 4, 3, 5], 0.9))
    limit = ratio.low if side == "above" else ratio.high
    assert limit is not None
    assert interval_p_value(ratio, limit, side) == pytest.approx(0.05)  # type: ignore[arg-type]


def test_of_a_t_interval_it_is_students_p_value() -> None:
    """Scipy's tail at (value − limit)/se, or the mirror image, at every limit."""
    got = cluster_ratio_t([0.1, 0.5, 0.2, 0.9], [3, 4, 3, 5], 0.9)
    assert got.value is not None
    assert got.se is not None
    for limit in (-0.3, 0.0, 0.1, 0.2):
        t = (got.value - limit) / got.se
        assert interval_p_value(got, limit, "above") == pytest.approx(sps.t.sf(t, 3))
        assert interval_p_value(got, limit, "below") == pytest.approx(sps.t.cdf(t, 3))


def test_no_interval_has_no_p_value() -> None:
    """Without an interval there is nothing to claim."""
    missing = Interval(0.1, None, None, 0.9, 5, 1, "m", reason="one document")
    assert interval_p_value(missing, 0.0, "above") is None
