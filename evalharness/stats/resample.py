"""Resampling documents, vectorised: blocks of multinomial weights and the ends they give.

A bootstrap over documents needs only how often each document was drawn, so a replicate is a row
of weights and every statistic that is a function of document totals is a matrix product
(Davison & Hinkley 1997, §2.3). Weights are made in blocks that fit the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from evalharness.stats.interval import Floats

REPLICATES = 2000
MOST_CONFIDENT = 0.9995  # one-sided, that so many replicates give an end at
_KEPT = 12_000_000  # weights of one drawing that may stay in memory between calls: 24 MB
_BLOCK = 1 << 18  # weights held at a time: 2 MB, so that they stay in cache


def weight_blocks(clusters: int, replicates: int, seed: int) -> Iterator[Floats]:
    """Yield blocks (b, G) of how often each of G documents is drawn in G draws.

    Rows over all blocks number ``replicates``; the same arguments give the same weights.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // clusters)
    for start in range(0, replicates, rows):
        b = min(rows, replicates - start)
        drawn = rng.integers(0, clusters, size=(b, clusters), dtype=np.int32).astype(np.intp)
        drawn += np.arange(b, dtype=np.intp)[:, None] * clusters
        counts = np.bincount(drawn.ravel(), minlength=b * clusters)
        yield counts.astype(np.float64).reshape(b, clusters)


@lru_cache(maxsize=4)
def _kept(clusters: int, replicates: int, seed: int) -> tuple[npt.NDArray[np.uint16], ...]:
    """The last weights drawn: a run's metrics resample its documents and each task's items."""
    return tuple(w.astype(np.uint16) for w in weight_blocks(clusters, replicates, seed))


def resampled(totals: Floats, replicates: int, seed: int) -> Floats:
    """Return bootstrap totals (R, K) of document totals (G, K): each document drawn w_g times."""
    clusters = totals.shape[0]
    few = clusters < 1 << 16 and clusters * replicates <= _KEPT
    weights = (_kept if few else weight_blocks)(clusters, replicates, seed)
    blocks = [w.astype(np.float64, copy=False) @ totals for w in weights]
    return np.concatenate(blocks, axis=0)


class TooFewReplicates(ValueError):  # noqa: N818 (says what is wrong, as OverflowError does)
    """There are too few replicates for an end at this confidence; more would do."""


def check_replicates(replicates: int, confidence: float) -> None:
    """Raise TooFewReplicates where there are too few replicates for an end at this confidence."""
    needed = int(np.ceil(2 / (1 - confidence) - 1e-9)) - 1
    if replicates < needed:
        raise TooFewReplicates(
            f"replicates: must be at least {needed} at confidence {confidence}, got {replicates}"
        )


def percentile_ends(statistics: Floats, confidence: float) -> tuple[float, float]:
    """Return the two percentile ends of (R,) replicates: order statistics k and R + 1 − k.

    k = ⌊(R + 1)·α/2⌋ (Davison & Hinkley 1997, §5.2.2), so that an infinite replicate counts as
    an extreme one and is never averaged.
    """
    check_replicates(statistics.size, confidence)
    ordered = np.sort(statistics)
    k = int((statistics.size + 1) * (1 - confidence) / 2 + 1e-9)
    return float(ordered[k - 1]), float(ordered[statistics.size - k])


def canonical_order(rows: Floats) -> npt.NDArray[np.intp]:
    """Return an order of the rows of (G, K) that depends on their content alone.

    Sorting documents by content before drawing makes a seeded bootstrap independent of the order
    in which documents were read.
    """
    data = np.ascontiguousarray(rows + 0.0)  # -0.0 becomes 0.0
    keys = data.view(np.dtype((np.void, data.shape[1] * data.itemsize))).ravel()
    return np.argsort(keys, kind="stable")
