"""The skewness-adjusted interval against scipy, a root finder, plain loops and simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as sps

from evalharness.stats import (
    bounded_mean_t,
    cluster_ratio_t,
    cluster_skew_t,
    positive_mean_t,
    rate_t,
    rms_t,
)
from evalharness.stats.skewness import log_mean_with_worst

documents = st.lists(
    st.tuples(st.integers(-100, 100), st.integers(1, 1000)), min_size=2, max_size=30
)


def totals(size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    counts = rng.integers(20, 400, size)
    return counts * rng.gamma(1.0, 0.1, size), counts


def by_hand(sums: Any, counts: Any, side: int, weight: float, log: bool = False) -> float:
    """An end with loops, scipy's skewness and a root finder for Hall's cubic."""
    s, n = np.asarray(sums, float), np.asarray(counts, float)
    worst = np.argmax(side * (s - s.sum() / n.sum() * n))
    s_1, n_1 = np.append(s, weight * s[worst]), np.append(n, weight * n[worst])
    size = s_1.size
    scale = np.log if log else np.asarray
    value = scale(s_1.sum() / n_1.sum())
    without = [scale(np.delete(s_1, g).sum() / np.delete(n_1, g).sum()) for g in range(size)]
    moved = value - np.array(without)
    se = np.sqrt((size - 1) / size * (moved**2).sum())
    skewness = side * max(side * sps.skew(moved, bias=False), 0.0)
    k, wanted = skewness / np.sqrt(size), -side * sps.t.ppf(0.95, s.size - 1)
    hall = optimize.brentq(
        lambda x: x + k * x**2 / 3 + k**2 * x**3 / 27 + k / 6 - wanted, -1e4, 1e4
    )
    end = value - se * hall
    return float(np.exp(end) if log else end)


@pytest.mark.parametrize("size", [20, 40, 100])
def test_each_end_is_that_of_the_documents_and_their_worst(size: int) -> None:
    """The worst once more with weight min(1.5, 8/√G), on the log scale where all is positive."""
    sums, counts = totals(size)
    weight = min(1.5, 8 / math.sqrt(size))
    linear, log = cluster_skew_t(sums, counts, 0.9), positive_mean_t(sums, counts, 0.9)
    root = rms_t(sums, counts, 0.9)
    for side in (-1, 1):
        ends = [found.low if side < 0 else found.high for found in (linear, log, root)]
        right = [by_hand(sums, counts, side, weight, on_log) for on_log in (False, True)]
        assert ends == pytest.approx([*right, math.sqrt(right[1])])
    s, n = np.asarray(sums, float), np.asarray(counts, float)
    assert linear.se == pytest.approx(plain_se(s, n, np.asarray))
    assert log.se == pytest.approx(plain_se(s, n, np.log))
    end, _ = log_mean_with_worst(s, n, 0.9, 0.5)
    assert math.exp(end) == pytest.approx(by_hand(sums, counts, 1, 0.5, True))


def plain_se(s: Any, n: Any, scale: Any) -> float:
    """The jackknife's standard error, without a pseudo-document."""
    without = [scale(np.delete(s, g).sum() / np.delete(n, g).sum()) for g in range(s.size)]
    moved = scale(s.sum() / n.sum()) - np.array(without)
    return float(np.sqrt((s.size - 1) / s.size * (moved**2).sum()))


def jackknife(sums: Any, counts: Any) -> tuple[float, float]:
    """The t interval of 90% by leaving out one document at a time (MacKinnon's CV3)."""
    s, n = np.asarray(sums, float), np.asarray(counts, float)
    value, size = s.sum() / n.sum(), s.size
    left_out = (s.sum() - s) / (n.sum() - n)
    se = math.sqrt((size - 1) / size * ((left_out - value) ** 2).sum())
    half = sps.t.ppf(0.95, size - 1) * se
    return value - half, value + half


@given(documents)
def test_the_value_is_inside(rows: list[tuple[int, int]]) -> None:
    """Whatever the documents; few of them are no narrower than the jackknife's t interval."""
    sums, counts = np.array(rows, float).T
    (low, high), got = jackknife(sums, counts), cluster_skew_t(sums, counts, 0.9)
    if got.low is None:
        assert np.ptp(sums / counts) == pytest.approx(0.0, abs=1e-9 * np.abs(sums / counts).max())
        return
    assert got.value is not None
    assert got.high is not None
    assert got.low <= got.value <= got.high
    if len(rows) < 20:
        slack = 1e-9 * max(abs(low), abs(high), 1e-300)
        assert got.low <= low + slack
        assert got.high >= high - slack


@given(documents)
def test_swapping_the_sides_mirrors_it(rows: list[tuple[int, int]]) -> None:
    """Sums of the other sign give the interval of the other sign."""
    sums, counts = np.array(rows, float).T
    one, other = cluster_skew_t(sums, counts, 0.9), cluster_skew_t(-sums, counts, 0.9)
    mirrored = [None if x is None else -x for x in (other.value, other.high, other.low)]
    scale = np.abs(sums / counts).max()
    for here, there in zip((one.value, one.low, one.high), mirrored, strict=True):
        assert here == (there if there is None else pytest.approx(there, abs=1e-9 * scale))


def test_many_alike_documents_have_a_t_interval() -> None:
    """The adjustment fades: with 20,000 normal documents it is within 3%."""
    sums, counts = np.random.default_rng(1).normal(size=20_000), np.ones(20_000)
    one, other = cluster_skew_t(sums, counts, 0.9), cluster_ratio_t(sums, counts, 0.9)
    assert one.value is not None
    assert one.high is not None
    assert other.high is not None
    assert one.high - one.value == pytest.approx(other.high - one.value, rel=0.03)


def test_at_the_limit_it_passes_as_rarely_as_promised() -> None:
    """Skewed, heavy-tailed, unequal documents: t passes 8% of the time, this 5%."""
    rng = np.random.default_rng(2)
    draws, size = 2000, 100
    passed = np.zeros(2)
    for _ in range(draws):
        counts = np.clip(rng.lognormal(6.75, 0.55, size), 16, None).round()
        sums = counts * (rng.gamma(1.0, 0.05, size) - 0.05)
        for i, estimate in enumerate((cluster_skew_t, cluster_ratio_t)):
            high = estimate(sums, counts, 0.9).high
            passed[i] += high is not None and high < 0
    error = np.sqrt(0.05 * 0.95 / draws)
    assert passed[0] / draws <= 0.05 + 2 * error
    assert passed[1] / draws > 0.065


def test_no_spread_is_no_certainty() -> None:
    """Documents that are all alike give no interval, unless nothing moved at all."""
    counts = np.array([10.0, 20.0, 30.0] * 10)
    for estimate in (cluster_skew_t, positive_mean_t, rms_t):
        found = estimate(0.3 * counts, counts, 0.9)
        assert found.low is None
        assert found.reason is not None
        assert found.reason.startswith("every document shows the same value")
        nothing = estimate(0 * counts, counts, 0.9)
        assert (nothing.low, nothing.value, nothing.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("documents", [2, 5, 30, 200])
def test_a_rate_without_events_is_not_zero(documents: int) -> None:
    """Nor is it one where every token has the event: at least 3 of all tokens may have it."""
    counts = np.full(documents, 100.0)
    none, every = rate_t(0 * counts, counts, 0.9), rate_t(counts, counts, 0.9)
    assert none.high is not None
    assert none.high >= (1 - 0.05 ** (1 / documents)) / 100
    assert (none.low, every.high) == (0.0, 1.0)
    assert every.low == pytest.approx(1 - none.high)


@pytest.mark.parametrize("items", [10, 30, 100, 300, 1000])
def test_a_bounded_score_without_a_loss_may_have_lost(items: int) -> None:
    """No narrower than Clopper and Pearson's bound of items lost altogether, none of them seen."""
    found = bounded_mean_t(np.zeros(items), np.ones(items), 0.9, -1.0, 1.0)
    most = 1 - 0.05 ** (1 / items)
    assert found.low is not None
    assert found.high == pytest.approx(-found.low)
    assert found.low <= -most


@pytest.mark.parametrize(("items", "loss"), [(20, 0.05), (100, 0.02), (200, 0.02), (200, 0.05)])
def test_sparse_losses_at_the_limit_pass_as_rarely_as_promised(items: int, loss: float) -> None:
    """Items that lose all of their score, few of them or none in a sample."""
    rng = np.random.default_rng(3)
    draws = 1000
    passed = 0
    for _ in range(draws):
        moved = -1.0 * (rng.random(items) < loss)
        low = bounded_mean_t(moved, np.ones(items), 0.9, -1.0, 1.0).low
        passed += low is not None and low > -loss
    assert passed / draws <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize(("documents", "rate"), [(20, 0.001), (50, 0.001), (50, 0.02)])
def test_sparse_flips_at_the_limit_pass_as_rarely_as_promised(documents: int, rate: float) -> None:
    """Tokens that flip in some documents and not in others."""
    rng = np.random.default_rng(4)
    draws = 1000
    passed = 0
    for _ in range(draws):
        counts = rng.integers(100, 600, documents)
        flips = rng.binomial(counts, np.minimum(1, rng.gamma(0.5, 2 * rate, documents)))
        high = rate_t(flips, counts, 0.9).high
        passed += high is not None and high < rate
    assert passed / draws <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / draws)
