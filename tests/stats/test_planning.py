"""Sizes against the tables they come from, and against what an interval then does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as sps
from statsmodels.stats.power import NormalIndPower

from evalharness.stats import (
    Interval,
    cluster_ratio_t,
    documents_needed,
    further_documents,
)


def test_documents_are_those_of_a_one_sided_z_test() -> None:
    """statsmodels' power of a one-sample z test at G is the power asked for."""
    needed = documents_needed(0.005, 0.1, 0.02, 0.9, power=0.9)
    assert needed is not None
    power = NormalIndPower(ddof=0).power(0.015 / 0.1, needed, 0.05, ratio=0, alternative="larger")
    assert power == pytest.approx(0.9, abs=0.002)


def test_a_value_at_the_limit_is_never_decided() -> None:
    """No number of documents tells a value from itself."""
    assert documents_needed(0.02, 0.1, 0.02, 0.9) is None


def test_documents_without_variation_need_two() -> None:
    """Two is the least for an interval."""
    assert documents_needed(0.0, 0.0, 0.02, 0.9) == 2


@pytest.mark.parametrize("arguments", [(math.nan, 1, 0), (0, -1, 1), (0, math.inf, 1)])
def test_impossible_plans_are_refused(arguments: tuple[float, float, float]) -> None:
    """NaN, infinite and negative arguments are errors."""
    with pytest.raises(ValueError, match="must be"):
        documents_needed(*arguments, 0.9)


def present(value: float, half: float, clusters: int) -> Interval:
    return Interval(value, value - half, value + half, 0.9, 100, clusters, "cluster-ratio t")


def test_an_interval_inside_its_limit_needs_no_more() -> None:
    """A settled gate needs 0 further documents on either side."""
    assert further_documents(present(0.0, 0.01, 50), 0.02, 0.9) == 0
    assert further_documents(present(0.0, 0.01, 50), -0.02, 0.9) == 0


def test_halving_the_width_takes_four_times_the_documents() -> None:
    """With many documents, where t is normal, 400 become 1,600, to settle it half the time."""
    more = further_documents(present(0.0, 0.02, 400), 0.01, 0.9, power=0.5)
    assert more == pytest.approx(1200, rel=0.01)


def test_with_few_documents_students_t_shrinks_too() -> None:
    """From 4 documents it is the first G at which t_{G−1}·σ/√G is inside."""
    more = further_documents(present(0.0, 0.02, 4), 0.01, 0.9, power=0.5)
    sigma = 0.02 / sps.t.ppf(0.95, 3) * 2
    fits = [g for g in range(4, 60) if sps.t.ppf(0.95, g - 1) * sigma / math.sqrt(g) < 0.01]
    assert more == fits[0] - 4


def test_the_side_toward_the_limit_counts() -> None:
    """A skewed interval needs more documents below a limit on its long side."""
    skewed = replace(present(1.0, 0.1, 100), high=1.4)
    above, below = (further_documents(skewed, limit, 0.9) for limit in (1.05, 0.95))
    assert above is not None
    assert below is not None
    assert above > 10 * below


def test_an_estimate_at_the_limit_never_settles() -> None:
    """Neither does one without an interval."""
    assert further_documents(present(0.02, 0.01, 50), 0.02, 0.9) is None
    missing = Interval(0.1, None, None, 0.9, 5, 1, "m", reason="one document")
    assert further_documents(missing, 0.2, 0.9) is None


def test_the_documents_asked_for_do_settle_it() -> None:
    """Simulated at the present estimate, the enlarged interval is inside four times in five."""
    rng = np.random.default_rng(0)
    first = cluster_ratio_t(rng.normal(0, 0.1, 50), np.ones(50), 0.9)
    assert first.value is not None
    assert first.se is not None
    limit = first.value + 0.012
    more = further_documents(first, limit, 0.9)
    assert more is not None
    size, spread = 50 + more, first.se * 50**0.5
    drawn = rng.normal(first.value, spread, (300, size))
    again = [cluster_ratio_t(row, np.ones(size), 0.9) for row in drawn]
    settled = np.mean([i.high < limit for i in again])  # type: ignore[operator]
    assert settled == pytest.approx(0.8, abs=0.08)
