"""How much data settles a question: before a run, and after an inconclusive one.

Every ``confidence`` is two-sided, as an interval's is: 0.90 plans for the one-sided 5% of a gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from evalharness.stats.interval import Floats, Interval, check_confidence

_NEVER = 10**7  # more documents than that is "never"
Reach = Callable[[int], float]
"""From a value to the end of its interval, by the number of documents."""


def clusters_needed(
    reach: Reach, gap: float, confidence: float, power: float = 0.8, least: int = 2
) -> int | None:
    """Return the documents G after which an interval ends before a limit with this probability.

    The end lies ``reach(G)`` from the value on average, and the value itself, good luck and bad,
    z/t as far from the truth: the result is the first G with reach(G)·(1 + z/t_{G−1}) ≤ gap, z the
    normal quantile of ``power``. Luck is taken in the same unit as the end, since documents that
    are skewed to the bad side raise both.

    Parameters
    ----------
    reach : from the value to the end that decides, by the number of documents.
    gap : from the expected true value to the limit, at least 0.
    confidence : two-sided, of the interval that ``reach`` is of.
    power : in (0, 1); 0.5 asks where the typical interval itself ends before the limit.
    least : fewest documents to think of, at least 2.

    Returns
    -------
    int or None
        None where the value is at the limit, so that no number of documents decides.

    """
    check_confidence(confidence)
    if not 0 < power < 1:
        raise ValueError(f"power: must be in (0,1), got {power}")
    if not (math.isfinite(gap) and gap >= 0):
        raise ValueError(f"gap: must be finite and at least 0, got {gap}")
    luck = max(0.0, float(ndtri(power)))

    def fits(clusters: int) -> bool:
        return reach(clusters) * (1 + luck / _t(clusters, confidence)) <= gap

    if gap == 0:
        return None
    low, high = least - 1, least
    while not fits(high):
        low, high = high, 2 * high
        if high > _NEVER:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def further_documents(
    interval: Interval, limit: float, confidence: float, power: float = 0.8
) -> int | None:
    """Return how many more documents settle a gate with probability ``power``.

    The end of the interval on the limit's side lies t_{G−1}·σ/√G from the value, and the value
    after more documents elsewhere: the result is the growth of G at which (t_{G−1} + z)·σ/√G comes
    down to |limit − value|, z the normal quantile of ``power``, were the present estimate the
    truth. 0 where the limit is outside the interval already.

    Parameters
    ----------
    interval : the present estimate.
    limit : the gate's limit, in the unit of ``interval.value``.
    confidence : two-sided, in (0, 1); the interval may have been built at another.
    power : in (0, 1).

    Returns
    -------
    int or None
        None where more documents never settle it (the estimate is at the limit), or where there
        is no interval to go by.

    """
    check_confidence(confidence)
    if interval.value is None or interval.low is None or interval.high is None:
        return None
    gap = abs(limit - interval.value)
    if gap == 0:
        return None
    half = (
        interval.high - interval.value if limit > interval.value else interval.value - interval.low
    )
    have = interval.clusters
    sigma = half / _t(have, interval.confidence)  # of the value, with the documents there are

    if _t(have, confidence) * sigma < gap:
        return 0

    def reach(clusters: int) -> float:
        return _t(clusters, confidence) * sigma * math.sqrt(have / clusters)

    needed = clusters_needed(reach, gap, confidence, power, least=have + 1)
    return None if needed is None else needed - have


def _t(clusters: int, confidence: float) -> float:
    return float(stdtrit(clusters - 1, 0.5 + confidence / 2))


def typical_normal(size: int) -> Floats:
    """Return (size,) evenly spaced quantiles of a normal distribution, with variance 1."""
    found = np.asarray(ndtri((np.arange(size) + 0.5) / size), dtype=np.float64)
    return found / float(found.std(ddof=1)) if size > 1 else found


def typical_lognormal(size: int, spread: float) -> Floats:
    """Return (size,) means of as many parts of a lognormal of mean 1 and deviation ``spread``."""
    sigma = math.sqrt(math.log1p(spread**2))
    edges = ndtri(np.linspace(0, 1, size + 1))
    return np.asarray(np.diff(ndtr(edges - sigma)) * size, dtype=np.float64)


def typical_documents(sums: Floats, counts: Floats, size: int) -> tuple[Floats, Floats]:
    """Return sums and counts (size,) of as many documents with the mean and the tail of these.

    Documents (G,), each with a count above 0, are put in the order of their means and cut into
    ``size`` equal parts; one part, which may be less than a document, gives one.
    """
    order = np.argsort(sums / counts, kind="stable")
    edges = np.linspace(0, sums.size, size + 1)
    whole = np.arange(sums.size + 1)

    def parts(values: Floats) -> Floats:
        total = np.concatenate([[0.0], np.cumsum(values[order])])
        between: Floats = np.diff(np.interp(edges, whole, total))
        return between * (size / sums.size)

    numbers = parts(counts)
    rounded = np.maximum(1.0, np.round(numbers))  # rows are whole
    return parts(sums) / numbers * rounded, rounded
