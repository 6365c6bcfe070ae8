"""Means over tokens with documents as the unit of resampling.

A per-token mean is a ratio of two document totals, δ = Σ S_g / Σ n_g, and tokens of one document
are not independent: a per-token standard error covers the truth 38% of the time instead of 95%.
The cluster-robust ratio error does what clustered evaluations need (Miller, arXiv 2411.00640;
Cameron & Miller 2015); the cluster jackknife is the more careful one with few or unequal
documents (MacKinnon, Nielsen & Webb 2023, "CV3").
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from evalharness.stats.interval import (
    NO_CLUSTERS,
    ONE_CLUSTER,
    Floats,
    Interval,
    check_confidence,
    code_array,
    count_array,
    finite_array,
    no_interval,
)


def cluster_sums(values: npt.ArrayLike, clusters: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Sum a per-token quantity within each document.

    Parameters
    ----------
    values : (N,) per-token quantity.
    clusters : (N,) integer codes 0 … G−1 of the token's document.

    Returns
    -------
    sums, counts : (G,) and (G,) float64; a code that does not occur has count 0.

    """
    array = finite_array("values", values)
    codes = code_array("clusters", clusters, array.size)
    sums = np.bincount(codes, weights=array).astype(np.float64)
    return sums, np.bincount(codes).astype(np.float64)


def used_clusters(sums: npt.ArrayLike, counts: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Validate document totals, drop documents with count 0, and put them in a canonical order.

    The order (by |sum|, count, sum) makes every result, bootstraps included, independent of the
    order in which documents were read, to the last bit.
    """
    s = finite_array("sums", sums)
    n = count_array("counts", counts)
    if s.shape != n.shape:
        raise ValueError(f"sums and counts: must have one shape (got {s.shape} and {n.shape})")
    if bool(np.any(s[n == 0] != 0)):
        raise ValueError("sums: must be 0 where the count is 0")
    s, n = s[n > 0], n[n > 0]
    order = np.lexsort((s, n, np.abs(s)))
    return s[order], n[order]


def too_few(
    s: Floats, n: Floats, confidence: float, method: str, minimum: int = 2
) -> Interval | None:
    """Return the estimate without an interval where fewer than ``minimum`` documents are left."""
    if s.size >= minimum:
        return None
    if s.size == 0:
        return no_interval(None, confidence, 0, 0, method, NO_CLUSTERS)
    value = float(s.sum() / n.sum())
    reason = ONE_CLUSTER if s.size == 1 else f"fewer than {minimum} documents (got {s.size})"
    return no_interval(value, confidence, int(n.sum()), s.size, method, reason)


def ratio_se(s: Floats, n: Floats) -> float:
    """Return √(G/(G−1)·Σ(S_g − δ n_g)²) / N, the linearised standard error of Σ S / Σ n."""
    total, size = float(n.sum()), s.size
    residuals = s - float(s.sum()) / total * n
    return math.sqrt(size / (size - 1) * float(residuals @ residuals)) / total


def t_interval(
    value: float, se: float, confidence: float, n: int, clusters: int, method: str
) -> Interval:
    """Return value ± t·se, with Student's t on ``clusters`` − 1 degrees of freedom."""
    half = float(stdtrit(clusters - 1, 0.5 + confidence / 2)) * se
    return Interval(value, value - half, value + half, confidence, n, clusters, method, se)


def cluster_ratio_t(sums: npt.ArrayLike, counts: npt.ArrayLike, confidence: float) -> Interval:
    """Return Σ S_g / Σ n_g with a cluster-robust Student t interval on G − 1 degrees of freedom.

    Parameters
    ----------
    sums : (G,) per-document sums of the per-token quantity (its unit is kept).
    counts : (G,) scored tokens of each document; documents with 0 are dropped.
    confidence : two-sided, in (0, 1).

    Returns
    -------
    Interval
        se = √(G/(G−1)·Σ(S_g − δ n_g)²) / N. No interval from one document.

    Raises
    ------
    ValueError
        For NaN or infinite input, negative counts, or a confidence outside (0, 1).

    References
    ----------
    Miller 2024, arXiv 2411.00640; Cameron & Miller 2015.

    """
    check_confidence(confidence)
    s, n = used_clusters(sums, counts)
    method = "cluster-ratio t"
    if (few := too_few(s, n, confidence, method)) is not None:
        return few
    total = float(n.sum())
    value = float(s.sum()) / total
    return t_interval(value, ratio_se(s, n), confidence, int(total), s.size, method)
