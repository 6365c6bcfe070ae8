"""Cluster bootstraps against brute force and simulation."""

from __future__ import annotations

import time

import numpy as np
import pytest

from evalharness.stats import cluster_bootstrap_t
from evalharness.stats.interval import Floats
from tests.stats.streams import document_totals


def skewed_totals(rng: np.random.Generator, documents: int) -> tuple[Floats, Floats, float]:
    """Draw document totals of a lognormal KL: sums, counts, and the true mean."""
    counts = np.clip(rng.lognormal(np.log(1000) - 0.15, 0.55, documents), 32, None).round()
    level = np.exp(rng.normal(0, 0.5, documents))
    # a sum of 1000 lognormal tokens of σ = 1.5: still skewed, close to a gamma of its moments
    mean, variance = np.exp(1.5**2 / 2), np.exp(1.5**2) * (np.exp(1.5**2) - 1)
    shape = counts * mean**2 / variance
    sums = level * rng.gamma(shape, variance / mean)
    return sums, counts, float(mean * np.exp(0.5**2 / 2))


def test_studentised_ends_match_a_plain_loop() -> None:
    """The bootstrap-t ends follow from t* computed replicate by replicate."""
    rng = np.random.default_rng(1)
    sums, counts, _ = skewed_totals(rng, 80)
    value = sums.sum() / counts.sum()

    def log_error(s: Floats, n: Floats) -> float:
        delta = s.sum() / n.sum()
        return float(np.sqrt(80 / 79 * ((s - delta * n) ** 2).sum()) / n.sum() / delta)

    t = []
    for _ in range(4000):
        pick = rng.integers(0, 80, 80)
        s, n = sums[pick], counts[pick]
        t.append(np.log(s.sum() / n.sum() / value) / log_error(s, n))
    se = log_error(sums, counts)
    low, high = value * np.exp(-np.quantile(t, [0.95, 0.05]) * se)
    got = cluster_bootstrap_t(sums, counts, 0.9, replicates=10_000, log=True)
    assert got.se == pytest.approx(se)
    assert (got.low, got.high) == pytest.approx((low, high), rel=0.02)


def test_the_log_scale_needs_no_unit() -> None:
    """Scaling the sums scales value and ends and leaves the error alone."""
    sums, counts, _ = skewed_totals(np.random.default_rng(2), 120)
    one = cluster_bootstrap_t(sums, counts, 0.9, log=True)
    other = cluster_bootstrap_t(1e-3 * sums, counts, 0.9, log=True)
    expected = [1e-3 * x for x in (one.value, one.low, one.high)]  # type: ignore[operator]
    assert [other.value, other.low, other.high] == pytest.approx(expected)
    assert other.se == pytest.approx(one.se)


def test_a_mean_of_0_falls_back_and_says_so() -> None:
    """The logarithm of 0 is not taken; the method names the identity scale."""
    got = cluster_bootstrap_t(np.zeros(150), np.ones(150), 0.95, log=True)
    assert (got.value, got.low, got.high) == (0.0, 0.0, 0.0)
    assert got.method == "cluster bootstrap-t (identity scale: the value is not positive)"


def test_few_documents_make_a_log_interval_approximate() -> None:
    """Below 100 documents the method says so; from 100 on it does not."""
    sums, counts, _ = skewed_totals(np.random.default_rng(3), 100)
    few = cluster_bootstrap_t(sums[:99], counts[:99], 0.95, log=True)
    assert few.method == (
        "cluster bootstrap-t (log), fewer than 100 documents: interval is approximate"
    )
    enough = cluster_bootstrap_t(sums, counts, 0.95, log=True)
    assert enough.method == "cluster bootstrap-t (log)"


def test_one_document_carrying_the_mean_gives_no_interval() -> None:
    """When a third of the resamples miss the only document that differs, no end is honest."""
    sums = np.zeros(50)
    sums[0] = 1.0
    got = cluster_bootstrap_t(sums, np.ones(50), 0.95, log=True)
    assert (got.value, got.low, got.high) == (0.02, None, None)
    assert got.reason is not None
    assert "too few carry the mean" in got.reason


def test_equal_documents_have_a_point_interval() -> None:
    """The same ratio in every document leaves nothing to vary."""
    got = cluster_bootstrap_t([0.5, 1.0, 2.0], [1, 2, 4], 0.95, log=False)
    assert (got.value, got.low, got.high) == (0.5, 0.5, 0.5)


def test_swapping_the_sides_mirrors_the_interval() -> None:
    """Negated differences give the mirror image to the last bit of the seed."""
    sums, counts = document_totals(np.random.default_rng(5), 60, 0.01, 0.3)
    one, other = (cluster_bootstrap_t(s, counts, 0.9, log=False) for s in (sums, -sums))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))  # type: ignore[operator]


@pytest.mark.parametrize("documents", [50, 200])
def test_mean_kl_intervals_cover(documents: int) -> None:
    """At 50 and 200 skewed documents nominal 95% intervals cover at least 92%."""
    rng = np.random.default_rng(11)
    hits = 0
    for r in range(800):
        sums, counts, truth = skewed_totals(rng, documents)
        got = cluster_bootstrap_t(sums, counts, 0.95, replicates=499, seed=r, log=True)
        assert got.low is not None
        assert got.high is not None
        hits += got.low <= truth <= got.high
    assert 0.92 <= hits / 800 <= 0.975


def test_nll_shift_intervals_cover() -> None:
    """At 10 documents the bootstrap-t covers at least 90% of the time."""
    rng = np.random.default_rng(12)
    hits = 0
    for r in range(800):
        sums, counts = document_totals(rng, 10, 0.01, 0.3)
        got = cluster_bootstrap_t(sums, counts, 0.95, replicates=499, seed=r, log=False)
        hits += got.low is None or got.low <= 0 <= got.high  # type: ignore[operator]
    assert hits / 800 >= 0.90


def test_five_thousand_documents_take_seconds_at_most() -> None:
    """10,000 replicates over 5,000 documents take a second on an idle core."""
    sums, counts, _ = skewed_totals(np.random.default_rng(6), 5000)
    start = time.process_time()
    cluster_bootstrap_t(sums, counts, 0.95, replicates=10_000, log=True)
    assert time.process_time() - start < 10
