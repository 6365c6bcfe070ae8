"""The interval of a quantile, from intervals of the share of tokens above a value.

A quantile is at least v where the share of tokens above v is at least 1 − q. That share is a mean
over tokens, so an interval for it at each of a few dozen values gives one for the quantile
(Woodruff 1952). It is studentised on the logit scale; critical values come from resampled
documents, or from Student's t where that is wider.

In the tail one document in fifty may own a tenth of all tokens beyond the quantile, and resamples
of documents that missed it miss it too: on 64 documents of real records the upper end of p99 lay
too low 9% of the time instead of 5%. So the upper end of a quantile from .9 on is tested with half
of the worst document added as well. A median has no such tail.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import logit, stdtrit

from evalharness.stats.interval import Floats
from evalharness.stats.means import ratio_se
from evalharness.stats.resample import canonical_order, resampled
from evalharness.stats.skewness import log_mean_with_worst

_GRID, _FAR = 32, 16  # values at which the share above is tested; more, further up
_TAIL, _WORST = 0.9, 0.5  # quantiles that have a tail; the weight of the worst document there
_NEAR = 1.0  # standard errors between two of them over which a straight line will do


def share_grid(above: Floats, n: Floats, q: float, confidence: float) -> Floats:
    """Return falling shares (K,) above v that surely bracket the interval, even on the logit."""
    p = 1 - q
    spread = max(ratio_se(above, n), 0.5 / float(n.sum())) / (p * q)
    t = float(stdtrit(n.size - 1, 0.5 + confidence / 2))
    reach = min((2.2 * t + 2) * spread, 7.0)
    away = np.linspace(reach, -reach, _GRID)
    least = float(logit(1 / (n.sum() + 1)) - logit(p))  # less than one token
    if q >= _TAIL and least < -reach:  # `_worst_again` may end anywhere up to the largest value
        away = np.append(away, np.linspace(-reach, least, _FAR + 1)[1:])
    return np.asarray(1 / (1 + np.exp(-(logit(p) + away))))


def invert(
    above: Floats,
    n: Floats,
    grid: Floats,
    q: float,
    confidence: float,
    replicates: int,
    seed: int,
) -> tuple[float | None, float | None]:
    """Return the ends of the values (K,) whose share above, from (G, K), may be 1 − q.

    None for an end where no value of the grid is refused on that side.
    """
    columns = np.column_stack([above, above**2, above * n[:, None], n, n * n])
    columns = columns[canonical_order(np.column_stack([above, n]))]
    observed, se = _logit_share(columns.sum(axis=0)[None, :], n.size)
    drawn, drawn_se = _logit_share(resampled(columns, replicates, seed), n.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = _studentised(drawn - observed, drawn_se)  # (R, K)
        seen = _studentised(observed - logit(1 - q), se)[0]  # (K,)
    k = int((replicates + 1) * (1 - confidence) / 2 + 1e-9)
    least, most = np.partition(t.T, (k - 1, replicates - k))[:, [k - 1, replicates - k]].T
    student = float(stdtrit(n.size - 1, 0.5 + confidence / 2))  # resampling alone is too short
    too_many = seen - np.maximum(most, student)  # refused where above 0
    too_few = np.minimum(least, -student) - seen
    # a share of 0 or 1 has no logit: it is refused where 1 − q is twice as far as it need be
    spread = float(se[0, int(np.argmin(np.abs(observed[0] - logit(1 - q))))])
    none, all_ = np.isneginf(observed[0]), np.isposinf(observed[0])
    too_few[none] = np.inf if spread * q * 2 * student < 1 else -np.inf
    too_many[all_] = np.inf if spread * (1 - q) * 2 * student < 1 else -np.inf
    too_many[none] = too_few[all_] = -np.inf
    # The share falls: below a value with too many above it, and above one with too few, all are
    # refused, also where so few tokens are left that their own test can tell nothing.
    first = int(np.flatnonzero(np.append(True, too_many > 0))[-1])  # may be the quantile
    last = int(np.flatnonzero(np.append(too_few > 0, True))[0]) - 1
    if q >= _TAIL:
        last = _worst_again(above, n, too_few, last, 1 - q, confidence)
    low = None if first == 0 else _crossing(grid, too_many, first - 1, first)
    high = None if last == grid.size - 1 else _crossing(grid, too_few, last + 1, last)
    return low, high


def _worst_again(
    above: Floats, n: Floats, too_few: Floats, last: int, share: float, confidence: float
) -> int:
    """Return ``last``, moved up to the last value that passes with part of its worst document.

    ``too_few`` (K,) is lowered to this test's, in standard errors of the logarithm of the share,
    at the values looked at.
    """
    for j in range(max(last, 0), too_few.size):
        if above[:, j].any():
            end, se = log_mean_with_worst(above[:, j], n, confidence, _WORST)
            if math.isfinite(end) and se:
                too_few[j] = min(too_few[j], (math.log(share) - end) / se)
        if too_few[j] > 0:
            return j - 1
    return too_few.size - 1


def _logit_share(totals: Floats, clusters: int) -> tuple[Floats, Floats]:
    """Return the logit of Σ a/Σ n and its standard error, (R, K) each, from resampled totals."""
    k = (totals.shape[1] - 2) // 3
    a, aa, an = totals[:, :k], totals[:, k : 2 * k], totals[:, 2 * k : 3 * k]
    b, bb = totals[:, -2:-1], totals[:, -1:]
    share = a / b
    squares = np.maximum(aa - 2 * share * an + share**2 * bb, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        se = np.sqrt(clusters / (clusters - 1) * squares) / b / (share * (1 - share))
        return logit(share), se


def _studentised(gap: Floats, se: Floats) -> Floats:
    """Return gap/se, infinite where the logit is or where there is no spread, never NaN."""
    t = np.where(np.isfinite(gap), gap / se, np.sign(gap) * np.inf)
    return np.where(np.isnan(t), 0.0, t)


def _crossing(grid: Floats, excess: Floats, refused: int, allowed: int) -> float:
    """Return where ``excess`` passes 0: on a line between near neighbours, else at the refused one.

    An ``allowed`` beyond the grid means that all of it is refused.
    """
    if not 0 <= allowed < grid.size:
        return float(grid[refused])
    above, below = float(excess[refused]), float(excess[allowed])
    if not above - below < _NEAR:
        return float(grid[refused])
    return float(grid[refused] + above / (above - below) * (grid[allowed] - grid[refused]))
