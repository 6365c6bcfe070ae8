"""Student's t corrected for skewness and for what was not drawn: what a gate on documents needs.

Where documents are skewed to the bad side, a sample that missed the bad ones has a low mean *and*
a small standard error, and a symmetric interval passes it: at 100 documents with 5% of flips, 7 to
8% of the time instead of 5%. Two corrections, for each end by itself:

- a pseudo-document joins the sample: the worst one seen (for a lower end the best), with weight
  min(1.5, 8/√G). It stands for those worse than any that was drawn. What it adds to the mean goes
  as (worst − mean)/G^1.5, so that it fades faster than the standard error does;
- Hall's monotone transformation takes the first-order error of skewness out (Hall 1992), and is
  never used to pull an end in.

Standard errors leave out one document at a time ("CV3"), the careful choice where lengths are
unequal (MacKinnon, Nielsen & Webb 2023); positive quantities (KL, squares, tokens in a tail) are
on the log scale. All of it is closed form and tends to Student's t as documents are added.

No spread is no certainty. Documents that all show the same value other than 0 give no interval; a
rate has at least one event in its pseudo-document; and scores between known bounds are joined by a
cluster that is lost altogether, with weight max(.45, √(15/G)).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from evalharness.stats.interval import Floats, Interval, check_confidence, no_interval
from evalharness.stats.means import too_few, used_clusters

_LEAST = 4  # documents from which a skewness can be told; below, t on 1 or 2 df is wide by itself
_SURE = 1.2815516  # standard errors to the one-sided 90% bound of the skewness
_A, _B = 1 / 3, 1 / 6  # Hall's constants for a studentised mean
# Of the pseudo-document: the least at which a mean of lognormal documents (σ = 1) at its limit
# passes 5% of the time, and more than that only makes few documents useless.
_WEIGHT, _MOST = 8.0, 1.5
# Of a cluster that is lost altogether: √(15/G), and not so little that none seen in G of them
# would pass a limit that 3/G of them break.
_LOST, _LEAST_LOST = 15.0, 0.45
_FEW = 20  # documents below which an end is also that of the bounded skewness, if further out

_ALIKE = "every document shows the same value: with no variation seen there is no interval"
_Extra = tuple[float, float]  # sum and count of a pseudo-document


def cluster_skew_t(
    sums: npt.ArrayLike, counts: npt.ArrayLike, confidence: float, *, event: float = 0.0
) -> Interval:
    """Return Σ S_g / Σ n_g with a leave-one-document-out t interval, adjusted for skewness.

    Parameters
    ----------
    sums : (G,) per-document sums of the per-token quantity (its unit is kept).
    counts : (G,) scored tokens of each document; documents with 0 are dropped.
    confidence : two-sided, in (0, 1).
    event : what a pseudo-document's sum is at least, either way: 1 where sums count what moved.

    Returns
    -------
    Interval
        The two sides differ. No interval from one document, or from documents that all have the
        same mean, unless that is 0: then nothing moved on any token.

    Raises
    ------
    ValueError
        For NaN or infinite input, negative counts, or a confidence outside (0, 1).

    References
    ----------
    Hall 1992, JRSS B 54:221–228; Johnson 1978, JASA 73:536–544; MacKinnon, Nielsen & Webb 2023;
    for pseudo-observations, Chen, Variyath & Abraham 2008.

    """
    check_confidence(confidence)
    s, n = used_clusters(sums, counts)
    method = "cluster jackknife t, skewness-adjusted"
    if (few := too_few(s, n, confidence, method)) is not None:
        return few
    if not s.any() and event == 0:
        return Interval(0.0, 0.0, 0.0, confidence, int(n.sum()), s.size, method, 0.0)
    low = _worst(np.minimum(s, -event) if event else s, n, -1)
    high = _worst(np.maximum(s, event) if event else s, n, 1)
    return _with_worst(s, n, (low, high), confidence, method)


def rate_t(sums: npt.ArrayLike, counts: npt.ArrayLike, confidence: float) -> Interval:
    """Return a share of tokens, Σ S_g / Σ n_g with 0 <= S_g <= n_g, as :func:`cluster_skew_t` does.

    A pseudo-document has at least one event, and one of the opposite: that no token of a few
    documents flipped does not show that none will. Ends stay in [0, 1]. Arguments and errors as
    there.
    """
    check_confidence(confidence)
    s, n = used_clusters(sums, counts)
    method = "cluster jackknife t of a rate, skewness-adjusted"
    if bool(np.any((s < 0) | (s > n * (1 + 1e-12)))):
        raise ValueError("sums: must be at least 0 and at most the count: a rate lies in [0,1]")
    if (few := too_few(s, n, confidence, method)) is not None:
        return few
    low, high = _worst(np.minimum(s, n - 1.0), n, -1), _worst(np.maximum(s, 1.0), n, 1)
    return _with_worst(s, n, (low, high), confidence, method, (0.0, 1.0))


def bounded_mean_t(
    sums: npt.ArrayLike,
    counts: npt.ArrayLike,
    confidence: float,
    lowest: float,
    highest: float,
) -> Interval:
    """Return the mean of scores of items between known bounds, items in clusters.

    Parameters
    ----------
    sums, counts : (G,) totals and items of each cluster; clusters with 0 items are dropped.
    confidence : two-sided, in (0, 1).
    lowest, highest : what a single item can score, for instance −1 and 1 for a shift of F1.

    Returns
    -------
    Interval
        Each end is that of the clusters with one more, of their mean size and with every item at
        that end's bound, of weight max(.45, √(15/G)). Ends stay within the bounds. No interval
        from one cluster.

    """
    check_confidence(confidence)
    s, n = used_clusters(sums, counts)
    method = "cluster jackknife t of a bounded score, skewness-adjusted"
    if (few := too_few(s, n, confidence, method)) is not None:
        return few
    weight = max(_LEAST_LOST, math.sqrt(_LOST / s.size)) * float(n.mean())
    extra = ((lowest * weight, weight), (highest * weight, weight))
    return _with_worst(s, n, extra, confidence, method, (lowest, highest))


def positive_mean_t(sums: npt.ArrayLike, counts: npt.ArrayLike, confidence: float) -> Interval:
    """Return the mean of a positive, heavy-tailed quantity such as KL.

    As :func:`cluster_skew_t`, whose arguments these are, on the log scale; ``se`` is on that scale
    too. The lower end is 0 where one document carries the whole mean.
    """
    check_confidence(confidence)
    s, n = used_clusters(sums, counts)
    method = "cluster jackknife t (log), skewness-adjusted"
    if bool(np.any(s < 0)):
        raise ValueError("sums: must be at least 0")
    if (few := too_few(s, n, confidence, method)) is not None:
        return few
    total, value = float(n.sum()), float(s.sum() / n.sum())
    if value == 0:
        return Interval(0.0, 0.0, 0.0, confidence, int(total), s.size, method, 0.0)
    high, high_se = _log_end(s, n, _worst(s, n, 1), confidence, 1)
    low, _ = _log_end(s, n, _worst(s, n, -1), confidence, -1)
    se = _log_end(s, n, None, confidence, 1)[1]
    if high_se == 0:
        return no_interval(value, confidence, int(total), s.size, method, _ALIKE)
    if not math.isfinite(high):
        reason = "the upper end is beyond any number: too few documents carry the mean"
        return no_interval(value, confidence, int(total), s.size, method, reason)
    se = se if math.isfinite(se) else high_se
    low, high = min(low, value), max(high, value)
    return Interval(value, low, high, confidence, int(total), s.size, method, se)


def rms_t(square_sums: npt.ArrayLike, counts: npt.ArrayLike, confidence: float) -> Interval:
    """Return √(Σ Q_g / Σ n_g), the root mean square, with the ends of the mean mapped through √.

    ``square_sums`` (G,) are per-document sums of squares, at least 0; the mean's ends are those of
    :func:`positive_mean_t`. ``se`` is the delta method's, se(log mean)·rms/2. Other arguments and
    errors as in :func:`cluster_skew_t`.
    """
    if bool(np.any(np.asarray(square_sums, dtype=np.float64) < 0)):
        raise ValueError("square_sums: must be at least 0")
    mean = positive_mean_t(square_sums, counts, confidence)
    numbers = (mean.value, mean.low, mean.high)
    value, low, high = (None if x is None else math.sqrt(x) for x in numbers)
    se = None if mean.se is None or value is None else mean.se * value / 2
    return replace(mean, value=value, low=low, high=high, se=se, method=f"root of {mean.method}")


def jackknife_skew_t(
    value: float, moved: Floats, confidence: float, n: int, method: str
) -> Interval:
    """Return ``value`` with the interval of its jackknife, where documents cannot be reweighted.

    A skewness estimated from the same documents misses the same tail, so each end is built with
    the one-sided 90% bound of the skewness on that end's side (by jackknife).

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
    skewness, doubt = _skewness(moved), _SURE * _skewness_error(moved)
    root = math.sqrt(size)
    low = value - se * _inverse(t, min(skewness - doubt, 0.0) / root)
    high = value - se * _inverse(-t, max(skewness + doubt, 0.0) / root)
    return Interval(value, low, high, confidence, n, size, method, se)


def log_mean_with_worst(
    sums: Floats, counts: Floats, confidence: float, weight: float
) -> tuple[float, float]:
    """Return the upper end and the standard error of log(Σ S_g / Σ n_g).

    ``sums`` (G,) are at least 0 and not all 0, ``counts`` (G,) above 0, G at least 2. The worst
    document is the one with the largest excess S_g − mean·n_g; it joins with ``weight``.
    """
    end, se = _log_end(sums, counts, _worst(sums, counts, 1, weight=weight), confidence, 1)
    return (math.log(end) if 0 < end < math.inf else math.inf), se


def _worst(s: Floats, n: Floats, side: int, *, weight: float | None = None) -> _Extra:
    """The pseudo-document of an end, ``side`` 1 for the upper and −1 for the lower."""
    if weight is None:
        weight = min(_MOST, _WEIGHT / math.sqrt(s.size))
    mean = float(s.sum() / n.sum())
    at = int(np.argmax(side * (s - mean * n)))
    return weight * float(s[at]), weight * float(n[at])


def _with_worst(
    s: Floats,
    n: Floats,
    extra: tuple[_Extra, _Extra],
    confidence: float,
    method: str,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """The interval whose lower and upper end are of the sample with each of ``extra``."""
    total = float(n.sum())
    value = float(s.sum()) / total
    ends = [_end(s, n, one, confidence, side) for one, side in zip(extra, (-1, 1), strict=True)]
    if ends[0][1] == 0 and ends[1][1] == 0:
        return no_interval(value, confidence, int(total), s.size, method, _ALIKE)
    low, high = max(ends[0][0], bounds[0]), min(ends[1][0], bounds[1])
    se = _end(s, n, None, confidence, 1)[1]
    low, high = min(low, value), max(high, value)
    return Interval(value, low, high, confidence, int(total), s.size, method, se)


def _end(
    s: Floats, n: Floats, extra: _Extra | None, confidence: float, side: int
) -> tuple[float, float]:
    """One end of the mean of a sample with a pseudo-document, and its standard error."""

    def moved(s: Floats, n: Floats) -> tuple[float, Floats]:
        total, sum_ = float(n.sum()), float(s.sum())
        value = sum_ / total
        return value, value - (sum_ - s) / (total - n)

    end, se = _studentised(*moved(*_joined(s, n, extra)), s.size, confidence, side)
    if extra is None or s.size >= _FEW:
        return end, se
    plain = _bounded_skewness(*moved(s, n), confidence, side)
    return (max(end, plain) if side > 0 else min(end, plain)), se


def _log_end(
    s: Floats, n: Floats, extra: _Extra | None, confidence: float, side: int
) -> tuple[float, float]:
    """As `_end`, on the log scale and exponentiated; the standard error stays on it."""

    def moved(s: Floats, n: Floats) -> tuple[float, Floats] | None:
        total, sum_ = float(n.sum()), float(s.sum())
        rest = sum_ - s
        if bool(np.any(rest <= 1e-300)):  # one document carries the mean
            return None
        value = math.log(sum_ / total)
        return value, value - np.log(rest / (total - n))

    found = moved(*_joined(s, n, extra))
    if found is None:
        return (0.0 if side < 0 else math.inf), math.inf
    end, se = _studentised(*found, s.size, confidence, side)
    if extra is not None and s.size < _FEW:
        alone = moved(s, n)
        plain = side * math.inf if alone is None else _bounded_skewness(*alone, confidence, side)
        end = max(end, plain) if side > 0 else min(end, plain)
    return (math.exp(end) if end < 709 else math.inf), se


def _joined(s: Floats, n: Floats, extra: _Extra | None) -> tuple[Floats, Floats]:
    return (s, n) if extra is None else (np.append(s, extra[0]), np.append(n, extra[1]))


def _bounded_skewness(value: float, moved: Floats, confidence: float, side: int) -> float:
    found = jackknife_skew_t(value, moved, confidence, 0, "")
    end = found.high if side > 0 else found.low
    assert end is not None
    return end


def _studentised(
    value: float, moved: Floats, documents: int, confidence: float, side: int
) -> tuple[float, float]:
    """An end by Hall's transformation, t on ``documents`` − 1, and the standard error."""
    size = moved.size
    # What rounding leaves of documents that are alike.
    moved = np.where(np.abs(moved) > 1e-13 * abs(value), moved, 0.0)
    se = math.sqrt((size - 1) / size * float(moved @ moved))
    if se == 0:
        return value, 0.0
    t = float(stdtrit(documents - 1, 0.5 + confidence / 2))
    skewness = _skewness(moved)
    bent = max(skewness, 0.0) if side > 0 else min(skewness, 0.0)
    return value - se * _inverse(-side * t, bent / math.sqrt(size)), se


def _inverse(t: float, k: float) -> float:
    """Return T with T + a·k·T² + a²k²T³/3 + b·k = t, k the skewness over √G; rises with t."""
    if abs(k) < 1e-9:
        return t
    return float(np.cbrt(1 + 3 * _A * k * (t - _B * k)) - 1) / (_A * k)


def _skewness(values: Floats) -> float:
    """Return the sample skewness G1 of (G,) values."""
    x = _scaled(values)
    return 0.0 if x is None else float(_g1(_powers(x)[:, None], x.size)[0])


def _skewness_error(values: Floats) -> float:
    """Return the jackknife standard error of `_skewness`."""
    x = _scaled(values)
    if x is None:
        return 0.0
    without = _g1(np.stack([t - x**p for p, t in zip((1, 2, 3), _powers(x))]), x.size - 1)
    gap = without - without.mean()
    return math.sqrt((x.size - 1) / x.size * float(gap @ gap))


def _scaled(values: Floats) -> Floats | None:
    """Return the centred values over their largest; None where no skewness can be told."""
    if values.size < _LEAST:
        return None
    x = values - values.mean()
    scale = float(np.abs(x).max())
    return None if scale == 0 else x / scale


def _powers(x: Floats) -> Floats:
    return np.array([float((x**p).sum()) for p in (1, 2, 3)])


def _g1(sums: Floats, size: int) -> Floats:
    """Return G1 from sums of powers (3, K) over ``size`` values; 0 where they do not vary."""
    mean, square, cube = sums / size
    variance = square - mean**2
    third = cube - 3 * mean * square + 2 * mean**3
    varies = variance > 1e-12
    g1 = np.where(varies, third / np.where(varies, variance, 1.0) ** 1.5, 0.0)
    return np.asarray(g1 * math.sqrt(size * (size - 1)) / (size - 2), dtype=np.float64)
