"""Cluster bootstraps of a mean over tokens.

Mean KL is heavy-tailed and positive: a symmetric interval is too low on the right. The
bootstrap-t on the log scale bends the right way (Efron & Tibshirani 1993, ch. 12; Cameron,
Gelbach & Miller 2008 for the clustered version); the percentile bootstrap serves scores
without a better interval. Paired differences are a single sum per document, so a paired
bootstrap is :func:`cluster_bootstrap` on the differences.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from evalharness.stats.interval import Floats, Interval, check_confidence, no_interval
from evalharness.stats.means import ratio_se, too_few, used_clusters
from evalharness.stats.resample import check_replicates, percentile_ends, resampled

_FEW_FOR_HEAVY_TAILS = 100


def cluster_bootstrap_t(
    sums: npt.ArrayLike,
    counts: npt.ArrayLike,
    confidence: float,
    replicates: int = 2000,
    seed: int = 0,
    *,
    log: bool,
) -> Interval:
    """Return Σ S_g / Σ n_g with a studentised bootstrap interval over documents.

    Each replicate gives t* = (δ* − δ)/se*, or (ln δ* − ln δ)/(se*/δ*) with ``log``; the ends are
    δ − t*_hi·se and δ − t*_lo·se on that scale, exponentiated back. ``se`` is on that scale too.

    Parameters
    ----------
    sums, counts, confidence, replicates, seed : as in :func:`cluster_bootstrap`.
    log : use the log scale, for means of positive quantities such as mean KL. With a value that
        is not positive the identity scale is used and ``method`` says so. ``method`` also says
        when there are fewer than 100 documents: with heavy tails the interval then is approximate.

    Returns
    -------
    Interval
        No interval where replicates without spread reach the ends (a handful of documents, or
        all of the mean in one or two of them).

    References
    ----------
    Efron & Tibshirani 1993, ch. 12; Cameron, Gelbach & Miller 2008.

    """
    check_confidence(confidence)
    check_replicates(replicates, confidence)
    s, n = used_clusters(sums, counts)
    total = float(n.sum())
    value = float(s.sum()) / total if total else 0.0
    on_log = log and value > 0
    method = "cluster bootstrap-t (log)" if on_log else "cluster bootstrap-t"
    if log and not on_log:
        method += " (identity scale: the value is not positive)"
    if on_log and s.size < _FEW_FOR_HEAVY_TAILS:
        method += ", fewer than 100 documents: interval is approximate"
    if (few := too_few(s, n, confidence, method)) is not None:
        return few
    se = ratio_se(s, n)
    if se == 0:
        return Interval(value, value, value, confidence, int(total), s.size, method, 0.0)

    low_t, high_t = percentile_ends(_t_statistics(s, n, replicates, seed, on_log), confidence)
    if not (math.isfinite(low_t) and math.isfinite(high_t)):
        reason = "too many resamples of the documents show no variation: too few carry the mean"
        return no_interval(value, confidence, int(total), s.size, method, reason)
    if on_log:
        se /= value
        low, high = value * math.exp(-high_t * se), value * _exp(-low_t * se)
    else:
        low, high = value - high_t * se, value - low_t * se
    if not math.isfinite(high):
        reason = "the upper end is beyond any number: too few documents carry the mean"
        return no_interval(value, confidence, int(total), s.size, method, reason)
    return Interval(value, low, high, confidence, int(total), s.size, method, se)


def _exp(x: float) -> float:
    return math.exp(x) if x < 709 else math.inf


def _t_statistics(s: Floats, n: Floats, replicates: int, seed: int, log: bool) -> Floats:
    """Return the studentised replicates (R,), ±inf where a resample has no spread."""
    size = s.size
    scale = float(np.abs(s).max())  # keeps the squares in range
    s = s / scale
    products = np.column_stack([s, n, s * s, s * n, n * n])
    a, b, aa, ab, bb = resampled(products, replicates, seed).T
    delta = a / b
    squares = aa - 2 * delta * ab + delta**2 * bb  # Σ w (S − δ* n)², exact 0 only up to rounding
    squares = np.where(squares > 1e-13 * (aa + delta**2 * bb), squares, 0.0)
    se = np.sqrt(size / (size - 1) * squares) / b
    value = float(s.sum() / n.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        if log:
            gap = np.where(delta > 0, np.log(np.maximum(delta, 1e-300)), -np.inf) - math.log(value)
            t = gap * delta / se
            t = np.where(delta > 0, t, -np.inf)
        else:
            gap = delta - value
            t = gap / se
    stuck = se == 0
    t[stuck] = np.where(gap[stuck] == 0, 0.0, np.copysign(np.inf, gap[stuck]))
    return np.asarray(t, dtype=np.float64)
