"""Rates of rare events among tokens, and of one kind of event less its opposite.

Where a few documents show no event, or hardly any, the spread between them says that there is
none: a candidate at its limit then passes 20 to 80% of the time. So each end is also that of the
documents with the worst of them, as that end sees it, counted twice, and with one event at the
least: without any event the upper end is 2.5 to 4.5 events, where Poisson's law says three.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from evalharness.stats.interval import Floats, Interval, check_confidence
from evalharness.stats.means import too_few, used_clusters
from evalharness.stats.skewness import cluster_skew_t

_METHOD = "cluster jackknife t of a rate, skewness-adjusted, worst document twice"


def event_rate_t(
    sums: npt.ArrayLike, counts: npt.ArrayLike, confidence: float, *, signed: bool = False
) -> Interval:
    """Return Σ S_g / Σ n_g, events among tokens, with unseen events allowed for.

    Parameters
    ----------
    sums : (G,) events in each document, 0 <= S_g <= n_g; or of one kind less its opposite.
    counts : (G,) scored tokens of each; documents with 0 are dropped.
    confidence : two-sided, in (0, 1).
    signed : whether ``sums`` are such differences, −n_g <= S_g <= n_g.

    Returns
    -------
    Interval
        Within [0, 1], or [−1, 1] where ``signed``. No interval from one document.

    Raises
    ------
    ValueError
        For sums out of these bounds, and as :func:`cluster_skew_t` does.

    """
    check_confidence(confidence)
    s, n = used_clusters(sums, counts)
    least = -1.0 if signed else 0.0
    if bool(np.any((s < least * n) | (s > n))):
        raise ValueError(f"sums: must be from {least:g} to 1 times the count")
    if (few := too_few(s, n, confidence, _METHOD)) is not None:
        return few
    plain = cluster_skew_t(s, n, confidence)
    value = float(s.sum() / n.sum())
    highs = [value, plain.high, _with_worst(s, n, confidence).high]
    lows = [value, plain.low]
    if signed:
        mirrored = _with_worst(-s, n, confidence).high
        lows.append(None if mirrored is None else -mirrored)
    return replace(
        plain,
        value=value,
        low=max(least, min(x for x in lows if x is not None)),
        high=min(1.0, max(x for x in highs if x is not None)),
        method=_METHOD,
        reason=None,
    )


def _with_worst(s: Floats, n: Floats, confidence: float) -> Interval:
    """The interval with the worst document twice, the second time with at least one event."""
    worst = int(np.argmax(s - s.sum() / n.sum() * n))
    return cluster_skew_t(np.append(s, max(s[worst], 1.0)), np.append(n, n[worst]), confidence)
