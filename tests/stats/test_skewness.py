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
    cluster_bootstrap_t,
    cluster_ratio_t,
    cluster_skew_t,
    positive_mean_t,
    rms_t,
)
from evalharness.stats.skewness import jackknife_skew_t, log_mean_worst_twice

documents = st.lists(
    st.tuples(st.integers(-100, 100), st.integers(1, 1000)), min_size=2, max_size=30
)


def totals(size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    counts = rng.integers(20, 400, size)
    return counts * rng.gamma(1.0, 0.1, size), counts


def test_the_ends_solve_halls_transformation() -> None:
    """T = (δ − end)/se put through Hall's cubic is ∓t, with the 90% bound of scipy's skewness."""
    sums, counts = totals()
    size, value = 40, sums.sum() / counts.sum()
    without = np.array([np.delete(sums, g).sum() / np.delete(counts, g).sum() for g in range(size)])
    moved = value - without
    se = np.sqrt((size - 1) / size * (moved**2).sum())
    left_out = np.array([sps.skew(np.delete(moved, g), bias=False) for g in range(size)])
    doubt = sps.norm.ppf(0.9) * np.sqrt((size - 1) * left_out.var())
    t = sps.t.ppf(0.95, size - 1)

    def end(wanted: float, skewness: float) -> float:
        k = skewness / np.sqrt(size)
        hall = optimize.brentq(
            lambda x: x + k * x**2 / 3 + k**2 * x**3 / 27 + k / 6 - wanted, -1e4, 1e4
        )
        return value - se * hall

    skewness = sps.skew(moved, bias=False)
    got = cluster_skew_t(sums, counts, 0.9)
    assert got.se == pytest.approx(se)
    assert (got.low, got.high) == pytest.approx(
        (end(t, min(skewness - doubt, 0)), end(-t, skewness + doubt))
    )


def jackknife(sums: Any, counts: Any) -> tuple[float, float]:
    """The t interval of 90% by leaving out one document at a time (MacKinnon's CV3)."""
    s, n = np.asarray(sums, float), np.asarray(counts, float)
    value, size = s.sum() / n.sum(), s.size
    left_out = (s.sum() - s) / (n.sum() - n)
    se = math.sqrt((size - 1) / size * ((left_out - value) ** 2).sum())
    half = sps.t.ppf(0.95, size - 1) * se
    return value - half, value + half


@given(documents)
def test_it_is_never_narrower_than_the_jackknife(rows: list[tuple[int, int]]) -> None:
    """On either side, whatever the documents."""
    sums, counts = np.array(rows, float).T
    (low, high), got = jackknife(sums, counts), cluster_skew_t(sums, counts, 0.9)
    assert got.low is not None
    assert got.high is not None
    slack = 1e-9 * max(abs(low), abs(high), 1e-300)
    assert got.low <= low + slack
    assert got.high >= high - slack


@given(documents)
def test_swapping_the_sides_mirrors_it(rows: list[tuple[int, int]]) -> None:
    """Sums of the other sign give the interval of the other sign."""
    sums, counts = np.array(rows, float).T
    one, other = cluster_skew_t(sums, counts, 0.9), cluster_skew_t(-sums, counts, 0.9)
    mirrored = [-(x or 0.0) for x in (other.value, other.high, other.low)]
    scale = np.abs(sums / counts).max()
    assert [one.value, one.low, one.high] == pytest.approx(mirrored, abs=1e-9 * scale)


def test_many_alike_documents_have_a_t_interval() -> None:
    """The adjustment goes as 1/G: with 20,000 normal documents it is within 1%."""
    sums, counts = np.random.default_rng(1).normal(size=20_000), np.ones(20_000)
    one, other = cluster_skew_t(sums, counts, 0.9), cluster_ratio_t(sums, counts, 0.9)
    assert one.value is not None
    assert one.high is not None
    assert other.high is not None
    assert one.high - one.value == pytest.approx(other.high - one.value, rel=0.01)


def test_two_and_three_documents_have_a_t_interval() -> None:
    """No skewness can be told from them."""
    for rows in ([1.0, 5.0], [1.0, 2.0, 9.0]):
        counts = [1] * len(rows)
        got = cluster_skew_t(rows, counts, 0.9)
        assert (got.low, got.high) == pytest.approx(jackknife(rows, counts))


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


def test_the_worst_document_is_counted_twice_on_the_log_scale() -> None:
    """Against leaving out one document at a time in a loop, the worst one appended by hand."""
    sums, counts = np.array([3.0, 0.0, 1.0, 9.0, 2.0]), np.array([10.0, 8.0, 30.0, 20.0, 9.0])
    s, n = [*sums, 9.0], [*counts, 20.0]
    value = math.log(sum(s) / sum(n))
    moved = [value - math.log((sum(s) - a) / (sum(n) - b)) for a, b in zip(s, n, strict=True)]
    got = log_mean_worst_twice(sums, counts, 0.9)
    assert got.value == pytest.approx(value)
    assert got.se == pytest.approx(math.sqrt(5 / 6 * sum(m * m for m in moved)))
    assert got.high == jackknife_skew_t(value, np.array(moved), 0.9, 117, "").high


def test_a_positive_mean_takes_the_higher_upper_end() -> None:
    """The lower end is the bootstrap's, the upper end the higher of two."""
    sums, counts = totals()
    got = positive_mean_t(sums, counts, 0.9)
    log = cluster_bootstrap_t(sums, counts, 0.9, log=True)
    worst = log_mean_worst_twice(sums, counts, 0.9)
    assert got.low == log.low
    assert log.high is not None
    assert worst.high is not None
    assert got.high == max(log.high, math.exp(worst.high))


def test_a_tail_that_few_documents_own_passes_as_rarely_as_promised() -> None:
    """Lognormal documents: t passes 14% of the time, the skewness alone 8%."""
    rng = np.random.default_rng(5)
    draws, size, truth = 1500, 50, math.exp(1.1**2 / 2)
    passed = np.zeros(2)
    for _ in range(draws):
        counts = np.clip(rng.lognormal(6.75, 0.55, size), 16, None).round()
        squares = counts * rng.lognormal(0, 1.1, size)
        rms, plain = rms_t(squares, counts, 0.9), cluster_skew_t(squares, counts, 0.9)
        assert rms.high is not None
        assert plain.high is not None
        passed += (rms.high < math.sqrt(truth), plain.high < truth)
    print(passed / draws)
    assert passed[0] / draws <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws)
    assert passed[1] / draws > 0.065
