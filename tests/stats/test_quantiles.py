"""Quantiles over tokens, from tokens and from histograms."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from scipy import stats as sps

from evalharness.stats import (
    histogram_quantile,
    histogram_quantile_bootstrap,
    quantile_bootstrap,
)


def tokens(rng: np.random.Generator, documents: int, mean_length: int, effect: float) -> Any:
    """Draw lognormal tokens with document effects, and document codes."""
    lengths = np.clip(rng.lognormal(np.log(mean_length) - 0.15, 0.55, documents), 8, None)
    codes = np.repeat(np.arange(documents), lengths.astype(int))
    levels = rng.normal(0, effect, documents)[codes]
    return np.exp(1.5 * rng.standard_normal(codes.size) + levels), codes


def on_bins(values: Any, codes: Any, edges: Any) -> Any:
    bins = np.searchsorted(edges, values, side="right") - 1
    shape = (int(codes.max()) + 1, edges.size - 1)
    return np.bincount(codes * shape[1] + bins, minlength=shape[0] * shape[1]).reshape(shape)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_the_value_is_numpys(q: float) -> None:
    """The point estimate is the linear-interpolation quantile of all tokens."""
    values, codes = tokens(np.random.default_rng(0), 60, 100, 0.3)
    assert quantile_bootstrap(values, codes, q, 0.9).value == np.quantile(values, q)


def test_with_one_token_a_document_the_median_has_its_classical_interval() -> None:
    """Without clustering the ends are near the binomial order statistics."""
    values = np.random.default_rng(1).normal(size=1001)
    got = quantile_bootstrap(values, np.arange(1001), 0.5, 0.95)
    low, high = sps.binom.ppf([0.025, 0.975], 1001, 0.5).astype(int)
    ordered = np.sort(values)
    assert got.low == pytest.approx(ordered[low], abs=0.02)
    assert got.high == pytest.approx(ordered[high], abs=0.02)


def test_copies_of_a_token_are_not_evidence() -> None:
    """Repeating every token of its document 50 times leaves the interval as it was."""
    values = np.random.default_rng(2).normal(size=300)
    once = quantile_bootstrap(values, np.arange(300), 0.5, 0.95)
    copies = quantile_bootstrap(np.repeat(values, 50), np.repeat(np.arange(300), 50), 0.5, 0.95)
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high), abs=0.02)


def test_a_monotone_change_of_scale_carries_over() -> None:
    """The interval of the logarithm is, up to grid interpolation, the logarithm of the interval."""
    values, codes = tokens(np.random.default_rng(3), 80, 200, 0.3)
    plain = quantile_bootstrap(values, codes, 0.9, 0.9)
    logged = quantile_bootstrap(np.log(values), codes, 0.9, 0.9)
    assert (logged.low, logged.high) == pytest.approx(np.log([plain.low, plain.high]), abs=2e-3)  # type: ignore[list-item]


@pytest.mark.parametrize(("q", "effect"), [(0.5, 0.3), (0.99, 0.3), (0.5, 0.8), (0.99, 0.8)])
def test_nominal_90_percent_intervals_cover(q: float, effect: float) -> None:
    """With 150 documents at least 84% of 200 intervals hold the true quantile."""
    rng = np.random.default_rng(4)
    truth = np.exp(sps.norm.ppf(q) * np.hypot(1.5, effect))
    hits = defined = 0
    for r in range(200):
        got = quantile_bootstrap(*tokens(rng, 150, 60, effect), q, 0.9, replicates=299, seed=r)
        if got.low is not None and got.high is not None:
            defined += 1
            hits += got.low <= truth <= got.high
    assert defined >= 185
    assert hits / defined >= 0.84


def test_a_quantile_that_few_documents_reach_has_no_interval() -> None:
    """The p99.9 of 20 documents of 100 tokens is read off two tokens: no interval."""
    got = quantile_bootstrap(*tokens(np.random.default_rng(5), 20, 100, 0.3), 0.999, 0.9)
    assert got.value is not None
    assert got.low is None
    assert got.reason == "fewer than 10 documents have a token beyond the 0.999 quantile"


def test_few_documents_beyond_are_mentioned() -> None:
    """With between ten and thirty documents in the tail the method says approximate."""
    got = quantile_bootstrap(*tokens(np.random.default_rng(6), 20, 400, 0.2), 0.5, 0.9)
    assert got.low is not None
    assert got.method.endswith("fewer than 30 documents beyond it: interval is approximate")


def test_a_median_at_a_pile_of_zeros_is_0() -> None:
    """When most tokens agree exactly the median and its lower end are 0."""
    rng = np.random.default_rng(7)
    values, codes = tokens(rng, 60, 100, 0.3)
    values[rng.random(values.size) < 0.7] = 0.0
    got = quantile_bootstrap(values, codes, 0.5, 0.95)
    assert (got.value, got.low, got.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("q", [0, 1, 99])
def test_q_is_a_fraction(q: float) -> None:
    """A percentile is refused."""
    with pytest.raises(ValueError, match=r"q: must be in \(0,1\), got"):
        quantile_bootstrap([1.0, 2.0], [0, 1], q, 0.9)
    with pytest.raises(ValueError, match=r"q: must be in \(0,1\), got"):
        histogram_quantile([1, 2], [0, 1, 2], q)


def test_a_histogram_quantile_computed_by_hand() -> None:
    """Half into a bin from 1 to 4 on the log scale is 2."""
    assert histogram_quantile([4, 8, 4], [0.5, 1, 4, 9], 0.5) == pytest.approx(2.0)


def test_the_bin_from_0_holds_zeros() -> None:
    """A quantile in the first bin reads 0 when its edge is 0, else it is interpolated."""
    assert histogram_quantile([6, 4], [0, 1, 2], 0.5) == 0.0
    assert histogram_quantile([6, 4], [0.25, 1, 2], 0.3) == pytest.approx(0.5)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_histograms_agree_with_tokens(q: float) -> None:
    """On bins of 2% width, value and ends agree with those of the tokens within a bin."""
    values, codes = tokens(np.random.default_rng(8), 100, 200, 0.4)
    edges = np.concatenate([[0.0], np.geomspace(1e-6, 1e6, 1400)])
    exact = quantile_bootstrap(values, codes, q, 0.9)
    binned = histogram_quantile_bootstrap(on_bins(values, codes, edges), edges, q, 0.9)
    got, expected = (binned.value, binned.low, binned.high), (exact.value, exact.low, exact.high)
    assert got == pytest.approx(expected, rel=0.02)


def test_coarse_bins_give_a_wider_interval_not_none() -> None:
    """With everything in two bins the interval is still found, and holds the true median."""
    values, codes = tokens(np.random.default_rng(9), 100, 200, 0.4)
    edges = np.array([1e-6, 0.9, 1e6])
    got = histogram_quantile_bootstrap(on_bins(values, codes, edges), edges, 0.5, 0.9)
    assert got.low is not None
    assert got.high is not None
    assert got.low <= 1.0 <= got.high


def test_one_bin_is_all_that_is_known() -> None:
    """All tokens in one bin give that bin as the interval."""
    got = histogram_quantile_bootstrap([[0, 5, 0], [0, 7, 0]], [0, 1, 4, 9], 0.5, 0.9)
    assert (got.value, got.low, got.high) == (2.0, 1.0, 4.0)


@pytest.mark.parametrize("edges", [[1, 1, 2], [-1, 0, 1], [0, 1]])
def test_edges_rise_from_0(edges: list[float]) -> None:
    """Edges that repeat, are negative or of the wrong number are refused."""
    with pytest.raises(ValueError, match="edges: must"):
        histogram_quantile_bootstrap([[1, 2], [3, 4]], edges, 0.5, 0.9)


def test_a_million_tokens_take_seconds_at_most() -> None:
    """N = 1,000,000 tokens of G = 5,000 documents take half a second on an idle core."""
    values, codes = tokens(np.random.default_rng(10), 5000, 200, 0.4)
    start = time.process_time()
    quantile_bootstrap(values, codes, 0.99, 0.95)
    assert time.process_time() - start < 10


def test_the_tail_of_one_document_does_not_stretch_the_interval_of_a_median() -> None:
    """Its few tokens far up tell nothing by themselves, but lower values are refused already."""
    rng = np.random.default_rng(1)
    sizes = np.array([111, 188, 389, 511, 511, 379, 111, 511, 511, 179, 511, 511])
    codes = np.repeat(np.arange(12), sizes)
    values = np.exp(rng.normal(0, 0.3, codes.size) + rng.normal(0, 0.15, 12)[codes])
    tail = rng.random(codes.size) < np.where(codes == 2, 0.2, 0.01)
    values[tail] *= 3
    got = quantile_bootstrap(values, codes, 0.5, 0.95)
    assert got.value is not None
    assert got.high is not None
    assert got.high < 3 * got.value < values.max() / 2
