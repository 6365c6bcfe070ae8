"""Cluster-robust means against hand computation, statsmodels and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sps

from evalharness.stats import (
    cluster_ratio_t,
    cluster_sums,
    positive_mean_t,
    rms_t,
)
from tests.stats.streams import document_totals

sums_of_tokens = st.floats(-100, 100).map(lambda x: round(x, 9))  # squares of 1e-160 underflow
documents = st.lists(st.tuples(sums_of_tokens, st.integers(1, 1000)), min_size=2, max_size=30)


def test_a_ratio_computed_by_hand() -> None:
    """Sums 2, 6 over 1, 3 tokens: δ = 2, residuals 0, and for sums 1, 7: ±1, se = √(2·2)/4."""
    assert cluster_ratio_t([2, 6], [1, 3], 0.95).se == 0.0
    got = cluster_ratio_t([1, 7], [1, 3], 0.5)
    assert (got.value, got.se) == (2.0, 0.5)
    assert got.high == pytest.approx(2 + 0.5 * math.tan(math.pi / 4))  # t_1 is Cauchy: 75% at 1


def test_sums_are_taken_within_documents() -> None:
    """Tokens 1, 2, 4 of documents 0, 2, 2 sum to 1, 0, 6 over 1, 0, 2 tokens."""
    sums, counts = cluster_sums([1.0, 2.0, 4.0], [0, 2, 2])
    assert sums.tolist() == [1, 0, 6]
    assert counts.tolist() == [1, 0, 2]


def test_the_standard_error_is_that_of_a_cluster_robust_regression() -> None:
    """statsmodels' intercept-only OLS with clustered errors agrees exactly: its small-sample
    factor G/(G−1)·(N−1)/(N−k) has k = 1."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(25), rng.integers(5, 60, 25))
    tokens = rng.standard_t(4, codes.size) + rng.normal(0, 0.5, 25)[codes]
    fit = sm.OLS(tokens, np.ones((codes.size, 1))).fit(
        cov_type="cluster", cov_kwds={"groups": codes}, use_t=True
    )
    got = cluster_ratio_t(*cluster_sums(tokens, codes), 0.9)
    assert got.value == pytest.approx(fit.params[0])
    assert got.se == pytest.approx(fit.bse[0])
    assert [got.low, got.high] == pytest.approx(fit.conf_int(0.1)[0].tolist())


def test_one_token_a_document_is_an_ordinary_t_interval() -> None:
    """With every count 1 it is the mean's Student t interval of scipy."""
    values = np.random.default_rng(1).normal(size=12)
    got = cluster_ratio_t(values, np.ones(12), 0.95)
    expected = sps.t.interval(0.95, 11, values.mean(), sps.sem(values))
    assert (got.low, got.high) == pytest.approx(expected)


def test_a_document_without_tokens_is_dropped() -> None:
    """It counts neither as a cluster nor as a zero."""
    assert cluster_ratio_t([1, 0, 7], [1, 0, 3], 0.9) == cluster_ratio_t([1, 7], [1, 3], 0.9)


def test_a_sum_without_tokens_is_an_error() -> None:
    """A document with count 0 cannot have a sum."""
    with pytest.raises(ValueError, match="sums: must be 0 where the count is 0"):
        cluster_ratio_t([1.0, 2.0], [0, 2], 0.9)


def test_shapes_must_agree() -> None:
    """Sums and counts of different lengths are refused."""
    with pytest.raises(ValueError, match="must have one shape"):
        cluster_ratio_t([1.0, 2.0], [1, 2, 3], 0.9)


@given(documents)
def test_swapping_the_sides_flips_the_sign(rows: list[tuple[float, int]]) -> None:
    """Negated sums negate the value and mirror the interval."""
    sums, counts = np.array(rows).T
    one, other = cluster_ratio_t(sums, counts, 0.9), cluster_ratio_t(-sums, counts, 0.9)
    assert (one.value, one.low, one.high) == pytest.approx(
        (-other.value, -other.high, -other.low)  # type: ignore[operator]
    )


@given(documents, st.floats(1e-3, 1e3))
def test_a_change_of_unit_changes_nothing_else(rows: list[tuple[float, int]], unit: float) -> None:
    """Scaled sums scale the value, the ends and the error."""
    sums, counts = np.array(rows).T
    one, other = cluster_ratio_t(sums, counts, 0.9), cluster_ratio_t(sums * unit, counts, 0.9)
    scale = float(np.abs(sums).max()) * unit
    for a, b in ((one.value, other.value), (one.low, other.low), (one.se, other.se)):
        assert b == pytest.approx(a * unit, rel=1e-9, abs=1e-9 * scale)  # type: ignore[operator]


@given(documents, st.randoms())
def test_document_order_changes_not_even_the_last_bit(
    rows: list[tuple[float, int]], random: object
) -> None:
    """Shuffled documents give an equal Interval."""
    shuffled = rows.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = np.array(rows).T, np.array(shuffled).T
    assert cluster_ratio_t(*one, 0.9) == cluster_ratio_t(*other, 0.9)


def test_a_root_mean_square_computed_by_hand() -> None:
    """Squares summing to 8 and 28 over 4 and 8 tokens: mean 3, ends through the root."""
    mean, root = positive_mean_t([8, 28], [4, 8], 0.5), rms_t([8, 28], [4, 8], 0.5)
    assert root.value == math.sqrt(3)
    assert mean.low is not None
    assert mean.high is not None
    assert mean.se is not None
    assert (root.low, root.high) == (math.sqrt(mean.low), math.sqrt(mean.high))
    assert root.se == mean.se * math.sqrt(3) / 2  # of the logarithm


def test_a_root_mean_square_is_never_below_0() -> None:
    """Where one of 30 documents carries it all, the lower end is 0; of 3, there is none."""
    one = rms_t([0] * 29 + [9], [1] * 30, 0.95)
    assert one.low == 0.0
    assert one.high is not None
    assert one.high > math.sqrt(9 / 30)
    assert rms_t([0, 0, 9], [1, 1, 1], 0.95).high is None


def test_squares_are_not_negative() -> None:
    """A negative sum of squares is refused."""
    with pytest.raises(ValueError, match="square_sums: must be at least 0"):
        rms_t([1.0, -1.0], [1, 1], 0.9)


@pytest.mark.parametrize(
    ("documents", "icc", "rho", "least"),
    [(10, 0.01, 0.3, 0.90), (50, 0.01, 0.3, 0.93), (200, 0.01, 0.3, 0.93), (50, 0.002, 0.1, 0.93)],
)
def test_nominal_95_percent_intervals_cover(
    documents: int, icc: float, rho: float, least: float
) -> None:
    """Over 1,500 simulated corpora the truth is inside about as often as promised."""
    rng = np.random.default_rng(7)
    found = [
        cluster_ratio_t(*document_totals(rng, documents, icc, rho, truth=0.01), 0.95)
        for _ in range(1500)
    ]
    covered = np.mean([i.low <= 0.01 <= i.high for i in found])  # type: ignore[operator]
    assert least <= covered <= 0.97


def test_pretending_tokens_are_independent_covers_far_too_rarely() -> None:
    """The per-token interval on the same streams covers less than half the time."""
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(500):
        sums, counts = document_totals(rng, 50, 0.01, 0.3)
        hits += abs(sums.sum() / counts.sum()) <= 1.96 / math.sqrt(counts.sum())
    assert hits / 500 < 0.5
