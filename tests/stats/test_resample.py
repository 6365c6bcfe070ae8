"""Bootstrap weights and the ends read from replicates."""

from __future__ import annotations

import numpy as np
import pytest

from evalharness.stats.resample import (
    canonical_order,
    check_replicates,
    percentile_ends,
    resampled,
    weight_blocks,
)


def test_each_replicate_draws_as_many_documents_as_there_are() -> None:
    """Rows of weights sum to G, in blocks that add up to all replicates."""
    weights = np.concatenate(list(weight_blocks(3000, 200, seed=1)))
    assert weights.shape == (200, 3000)
    assert set(weights.sum(axis=1)) == {3000.0}


def test_weights_are_multinomial() -> None:
    """Weights have mean 1, variance 1 − 1/G and covariance −1/G."""
    weights = np.concatenate(list(weight_blocks(5, 40_000, seed=2)))
    assert weights.mean(axis=0) == pytest.approx(np.ones(5), abs=0.02)
    expected = np.eye(5) - 0.2
    assert np.cov(weights.T) == pytest.approx(expected, abs=0.03)


def test_a_seed_fixes_the_replicates() -> None:
    """The same seed gives the same totals, another seed others."""
    totals = np.random.default_rng(0).normal(size=(20, 2))
    assert np.array_equal(resampled(totals, 50, 3), resampled(totals, 50, 3))
    assert not np.array_equal(resampled(totals, 50, 3), resampled(totals, 50, 4))


def test_ends_are_order_statistics() -> None:
    """Of 1 … 99 at 90%: the 5th and the 95th."""
    assert percentile_ends(np.arange(99, 0, -1.0), 0.9) == (5.0, 95.0)


def test_an_infinite_replicate_stays_infinite() -> None:
    """With a tenth of the replicates infinite so is the upper 95% end."""
    replicates = np.where(np.arange(99) < 10, np.inf, 0.0)
    assert percentile_ends(replicates, 0.9) == (0.0, np.inf)


def test_too_few_replicates_are_refused() -> None:
    """A 95% interval needs 39 replicates."""
    check_replicates(39, 0.95)
    with pytest.raises(ValueError, match=r"replicates: must be at least 39 at confidence 0\.95"):
        check_replicates(38, 0.95)


def test_canonical_order_depends_on_content_alone() -> None:
    """Shuffled rows come out in the same order."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(30, 3))
    shuffled = rows[rng.permutation(30)]
    assert np.array_equal(rows[canonical_order(rows)], shuffled[canonical_order(shuffled)])
