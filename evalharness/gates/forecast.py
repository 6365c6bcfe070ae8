"""How far the interval that decides will reach, before there are documents to make it of.

Asked is the estimator itself, with all that it does for skewness and for what was not drawn, of a
*typical sample*: the documents of an earlier run, or the distribution that the metric's planning
spread stands for, in order and cut into so many parts, each of which is one document. An interval
that no sums decide (of quantiles, of groups of tasks) is taken from the earlier run and shrinks as
t/√G does.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import bdtr, stdtrit

from evalharness.gates.limits import Side
from evalharness.metrics import Metric, Spread
from evalharness.stats import Interval, Reach, typical_documents, typical_normal

_MOST = 10**7  # events; a limit that takes more is at the expected rate


def reach_of(info: Metric, spread: Spread, side: Side, confidence: float) -> Reach:
    """From the value to the end on the limit's side, by the number of documents or items.

    Parameters
    ----------
    info, spread : what is measured, and what its documents are assumed to be like.
    side : of the limit.
    confidence : two-sided, of the interval that decides.

    """

    def reach(clusters: int) -> float:
        if clusters < 2:
            return math.inf
        found = _expected(info, spread, clusters, confidence)
        if found.value is None or found.low is None or found.high is None:
            return math.inf
        return found.high - found.value if side == "max" else found.value - found.low

    return reach


def _expected(info: Metric, spread: Spread, clusters: int, confidence: float) -> Interval:
    if spread.parts is not None:
        return info.transform(
            info.of_totals(*typical_documents(*spread.parts, clusters), confidence)
        )
    if spread.interval is not None:
        return _shrunk(spread.interval, clusters, confidence)
    if info.typical is not None:
        return info.typical(spread, clusters, confidence)
    sums = spread.sd * typical_normal(clusters)
    return info.transform(info.of_totals(sums, np.ones(clusters), confidence))


def _shrunk(known: Interval, clusters: int, confidence: float) -> Interval:
    assert known.value is not None
    assert known.low is not None
    assert known.high is not None
    own, other = (
        float(stdtrit(n - 1, 0.5 + c / 2)) / math.sqrt(n)
        for n, c in ((known.clusters, known.confidence), (clusters, confidence))
    )
    low, high = (known.value + (end - known.value) * other / own for end in (known.low, known.high))
    return Interval(known.value, low, high, confidence, clusters, clusters, known.method)


def rate_needed(rate: float, limit: float, alpha: float, power: float) -> int | None:
    """Fewest items after which Clopper and Pearson's upper end keeps ``limit`` so often.

    The end of k events keeps it from the least n on at which at most k of n have a probability of
    ``alpha`` at the limit; the power is that of at most k events at the true ``rate``.
    """
    if rate >= limit:
        return None

    def fewest(events: int) -> int:
        low, high = events, max(2, 2 * events)
        while float(bdtr(events, high, limit)) > alpha:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            kept = float(bdtr(events, middle, limit)) <= alpha
            low, high = (low, middle) if kept else (middle, high)
        return high

    def enough(events: int) -> bool:
        return float(bdtr(events, fewest(events), rate)) >= power

    low, high = -1, 0
    while not enough(high):
        low, high = high, 2 * high + 1
        if high > _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return fewest(high)
