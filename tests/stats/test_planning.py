"""Sizes against the tables they come from, and against what an interval then does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as sps
from statsmodels.stats.power import TTestPower

from evalharness.stats import (
    Interval,
    Reach,
    cluster_ratio_t,
    clusters_needed,
    further_documents,
    typical_documents,
    typical_lognormal,
    typical_normal,
)


def of_normal(spread: float, confidence: float) -> Reach:
    """Student's t of documents with this standard deviation."""
    return lambda size: float(sps.t.ppf(0.5 + confidence / 2, size - 1)) * spread / math.sqrt(size)


def test_documents_are_those_of_a_one_sided_t_test() -> None:
    """statsmodels' power of a one-sample t test at G is the power asked for."""
    needed = clusters_needed(of_normal(0.1, 0.9), 0.015, 0.9, power=0.9)
    assert needed is not None
    power = TTestPower().power(0.015 / 0.1, needed, 0.05, alternative="larger")
    assert power == pytest.approx(0.9, abs=0.002)


def test_half_the_power_is_where_the_typical_interval_keeps_the_limit() -> None:
    """One document fewer, and it does not."""
    reach = of_normal(0.1, 0.9)
    needed = clusters_needed(reach, 0.02, 0.9, power=0.5)
    assert needed is not None
    assert reach(needed) <= 0.02 < reach(needed - 1)


def test_a_value_at_the_limit_is_never_decided() -> None:
    """No number of documents tells a value from itself, and none makes a fixed end shrink."""
    assert clusters_needed(of_normal(0.1, 0.9), 0.0, 0.9) is None
    assert clusters_needed(lambda size: 0.1, 0.02, 0.9) is None


def test_documents_without_variation_need_two() -> None:
    """Two is the least for an interval; more where more are asked for."""
    assert clusters_needed(lambda size: 0.0, 0.02, 0.9) == 2
    assert clusters_needed(lambda size: 0.0, 0.02, 0.9, least=20) == 20


@pytest.mark.parametrize(("gap", "power"), [(math.nan, 0.8), (-1, 0.8), (math.inf, 0.8), (1, 1.0)])
def test_impossible_plans_are_refused(gap: float, power: float) -> None:
    """NaN, infinite and negative gaps are errors, and so is certainty."""
    with pytest.raises(ValueError, match="must be"):
        clusters_needed(of_normal(0.1, 0.9), gap, 0.9, power)


@pytest.mark.parametrize("size", [20, 500])
def test_typical_samples_have_the_spread_of_their_distribution(size: int) -> None:
    """Exactly of the normal; of the lognormal the mean, and its deviation but for the far tail."""
    normal, other = typical_normal(size), typical_lognormal(size, 0.53)
    assert (float(normal.mean()), float(normal.std(ddof=1))) == pytest.approx((0, 1), abs=1e-12)
    assert float(other.mean()) == pytest.approx(1)
    assert float(other.std()) == pytest.approx(0.53, rel=0.1)
    assert float(np.median(other)) == pytest.approx(1 / math.sqrt(1 + 0.53**2), rel=0.03)


@pytest.mark.parametrize("size", [7, 50, 80, 333])
def test_typical_documents_keep_mean_and_lengths(size: int) -> None:
    """Of fewer, of as many and of more: the mean, the mean length, and no value beyond any."""
    rng = np.random.default_rng(2)
    counts = rng.integers(200, 900, 80).astype(float)
    sums = counts * rng.lognormal(0, 1, 80)
    s, n = typical_documents(sums, counts, size)
    assert s.size == n.size == size
    assert float(s.sum() / n.sum()) == pytest.approx(sums.sum() / counts.sum(), rel=2e-3)
    assert float(n.mean()) == pytest.approx(counts.mean(), abs=0.5)
    assert (sums / counts).min() - 1e-9 <= (s / n).min() <= (s / n).max()
    assert (s / n).max() <= (sums / counts).max() + 1e-9
    if size == 80:
        assert sorted(s / n) == pytest.approx(sorted(sums / counts))


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
