"""Student's t corrected for skewness: what a gate on few, unequal or skewed documents needs.

Where documents are skewed to the bad side, a sample that missed the bad ones has a low mean *and*
a small standard error, and a symmetric interval passes it: at 100 documents with 5% of flips, 7 to
8% of the time instead of 5%. Hall's monotone transformation takes the first-order error of
skewness out (Hall 1992); but a skewness estimated from the same documents misses the same tail, so
each end is built with the one-sided 90% bound of the skewness on that end's side (by jackknife),
and never with one that would pull the end in. Standard errors leave out one document at a time
("CV3"), the careful choice where lengths are unequal (MacKinnon, Nielsen & Webb 2023). All of it
is closed form and tends to Student's t as documents are added.

Positive quantities (KL, squares, tokens in a tail) have heavier tails still, and the document that
matters may not be among those drawn. The documents worse than the worst one seen are 1/(G + 1) of
all, on average: the upper end of such a mean is also that of the documents with their worst one
counted twice, on the log scale.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from evalharness.stats.bootstrap import cluster_bootstrap_t
from evalharness.stats.interval import Floats, Interval, check_confidence
from evalharness.stats.means import too_few, used_clusters

_LEAST = 4  # documents from which a skewness can be told; below, t on 1 or 2 df is wide by itself
_SURE = 1.2815516  # standard errors to the one-sided 90% bound of the skewness
_A, _B = 1 / 3, 1 / 6  # Hall's constants for a studentised mean


def cluster_skew_t(sums: npt.ArrayLike, counts: npt.ArrayLike, confidence: float) -> Interval:
    """Return Σ S_g / Σ n_g with a leave-one-document-out t interval, adjusted for skewness.

    Parameters
    ----------
    sums : (G,) per-document sums of the per-token quantity (its unit is kept).
    counts : (G,) scored tokens of each document; documents with 0 are dropped.
    confidence : two-sided, in (0, 1).

    Returns
    -------
    Interval
        At least as wide on either side as a plain jackknife's t interval; the two sides differ. No
        interval from one document.

    Raises
    ------
    ValueError
        For NaN or infinite input, negative counts, or a confidence outside (0, 1).

    References
    ----------
    Hall 1992, JRSS B 54:221–228; Johnson 1978, JASA 73:536–544; MacKinnon, Nielsen & Webb 2023.

    """
    check_confidence(confidence)
    s, n = used_clusters(sums, counts)
    method = "cluster jackknife t, skewness-adjusted"
    if (few := too_few(s, n, confidence, method)) is not None:
        return few
    total, sum_ = float(n.sum()), float(s.sum())
    value = sum_ / total
    without = (sum_ - s) / (total - n)
    return jackknife_skew_t(value, value - without, confidence, int(total), method)


def positive_mean_t(
    sums: npt.ArrayLike,
    counts: npt.ArrayLike,
    confidence: float,
    replicates: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the mean of a positive, heavy-tailed quantity such as KL.

    The bootstrap-t on the log scale (:func:`cluster_bootstrap_t`, whose arguments these are), with
    its upper end raised to that of :func:`log_mean_worst_twice` where that is higher: resamples of
    documents that missed the tail miss it too. No interval where the bootstrap-t has none.
    """
    found = cluster_bootstrap_t(sums, counts, confidence, replicates, seed, log=True)
    if found.high is None or found.se == 0:
        return found
    high = log_mean_worst_twice(*used_clusters(sums, counts), confidence).high
    assert high is not None
    return replace(found, high=max(found.high, math.exp(high)))


def log_mean_worst_twice(sums: Floats, counts: Floats, confidence: float) -> Interval:
    """Return log(Σ S_g / Σ n_g) with its interval, the worst document counted twice.

    ``sums`` (G,) are at least 0 and not all 0, ``counts`` (G,) above 0, G at least 2. The worst
    document is the one with the largest excess S_g − mean·n_g.
    """
    worst = int(np.argmax(sums - sums.sum() / counts.sum() * counts))
    s, n = np.append(sums, sums[worst]), np.append(counts, counts[worst])
    total, sum_ = float(n.sum()), float(s.sum())
    value = math.log(sum_ / total)
    moved = value - np.log((sum_ - s) / (total - n))
    method = "log-scale jackknife t, skewness-adjusted, worst document twice"
    return jackknife_skew_t(value, moved, confidence, int(total), method)


def rms_t(square_sums: npt.ArrayLike, counts: npt.ArrayLike, confidence: float) -> Interval:
    """Return √(Σ Q_g / Σ n_g), the root mean square, with the ends of the mean mapped through √.

    ``square_sums`` (G,) are per-document sums of squares, at least 0. The mean's ends are those of
    :func:`cluster_skew_t`, the lower at least 0, the upper raised to that of
    :func:`log_mean_worst_twice`. ``se`` is the delta method's, se(mean)/(2·rms). Other arguments
    and errors as in :func:`cluster_skew_t`.
    """
    if bool(np.any(np.asarray(square_sums, dtype=np.float64) < 0)):
        raise ValueError("square_sums: must be at least 0")
    mean = cluster_skew_t(square_sums, counts, confidence)
    method = f"root of {mean.method}"
    if mean.value is None:
        return replace(mean, method=method)
    value = math.sqrt(mean.value)
    if mean.low is None or mean.high is None or mean.se is None:
        return replace(mean, value=value, method=method)
    if mean.se == 0:
        return replace(mean, value=value, low=value, high=value, method=method)
    raised = log_mean_worst_twice(*used_clusters(square_sums, counts), confidence).high
    assert raised is not None
    low, high = math.sqrt(max(mean.low, 0.0)), math.sqrt(max(mean.high, math.exp(raised)))
    se = mean.se / (2 * value)
    return replace(mean, value=value, low=low, high=high, se=se, method=method)


def jackknife_skew_t(
    value: float, moved: Floats, confidence: float, n: int, method: str
) -> Interval:
    """Return ``value`` with the interval of its jackknife.

    Parameters
    ----------
    value : the estimate from all G documents, G at least 2.
    moved : (G,) the estimate less the estimate without each document.
    confidence, n, method : of the interval.

    """
    size = moved.size
    se = math.sqrt((size - 1) / size * float(moved @ moved))
    if se == 0:
        return Interval(value, value, value, confidence, n, size, method, 0.0)
    t = float(stdtrit(size - 1, 0.5 + confidence / 2))
    skewness, error = _skewness(moved)
    doubt = _SURE * error
    root = math.sqrt(size)
    low = value - se * _inverse(t, min(skewness - doubt, 0.0) / root)
    high = value - se * _inverse(-t, max(skewness + doubt, 0.0) / root)
    return Interval(value, low, high, confidence, n, size, method, se)


def _inverse(t: float, k: float) -> float:
    """Return T with T + a·k·T² + a²k²T³/3 + b·k = t, k the skewness over √G; rises with t."""
    if abs(k) < 1e-9:
        return t
    return float(np.cbrt(1 + 3 * _A * k * (t - _B * k)) - 1) / (_A * k)


def _skewness(values: Floats) -> tuple[float, float]:
    """Return the sample skewness G1 of (G,) values and its jackknife standard error."""
    size = values.size
    if size < _LEAST:
        return 0.0, 0.0
    x = values - values.mean()
    scale = float(np.abs(x).max())
    if scale == 0:
        return 0.0, 0.0
    x = x / scale
    sums = [float((x**p).sum()) for p in (1, 2, 3)]
    all_ = _g1(np.array(sums)[:, None], size)
    without = _g1(np.stack([total - x**p for p, total in zip((1, 2, 3), sums)]), size - 1)
    gap = without - without.mean()
    return float(all_[0]), math.sqrt((size - 1) / size * float(gap @ gap))


def _g1(sums: Floats, size: int) -> Floats:
    """Return G1 from sums of powers (3, K) over ``size`` values; 0 where they do not vary."""
    mean, square, cube = sums / size
    variance = square - mean**2
    third = cube - 3 * mean * square + 2 * mean**3
    varies = variance > 1e-12
    g1 = np.where(varies, third / np.where(varies, variance, 1.0) ** 1.5, 0.0)
    return np.asarray(g1 * math.sqrt(size * (size - 1)) / (size - 2), dtype=np.float64)
