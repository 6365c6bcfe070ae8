"""The rate of one kind of event among tokens, less that of its opposite.

Where a few documents show no event, or hardly any, their spread says that there is none: a
candidate at its limit then passes 10 to 80% of the time. So each end is of documents among which
the worst, as that end sees it, has one event at the least.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from evalharness.stats.interval import Floats, Interval, check_confidence
from evalharness.stats.means import too_few, used_clusters
from evalharness.stats.skewness import cluster_skew_t

_METHOD = "cluster jackknife t of a rate less another, skewness-adjusted"


def net_rate_t(sums: npt.ArrayLike, counts: npt.ArrayLike, confidence: float) -> Interval:
    """Return Σ S_g / Σ n_g, events less opposite events, as :func:`cluster_skew_t` does.

    Parameters
    ----------
    sums : (G,) events less opposite ones in each document, −n_g <= S_g <= n_g.
    counts : (G,) scored tokens of each; documents with 0 are dropped.
    confidence : two-sided, in (0, 1).

    Returns
    -------
    Interval
        Within [−1, 1]. No interval from one document.

    Raises
    ------
    ValueError
        For sums out of these bounds, and as :func:`cluster_skew_t` does.

    """
    check_confidence(confidence)
    s, n = used_clusters(sums, counts)
    if bool(np.any(np.abs(s) > n)):
        raise ValueError("sums: must be from -1 to 1 times the count")
    if (few := too_few(s, n, confidence, _METHOD)) is not None:
        return few
    up, down = _seen(s, n, confidence), _seen(-s, n, confidence)
    if up.high is None or down.high is None:
        return replace(up, value=float(s.sum() / n.sum()), low=None, high=None, method=_METHOD)
    plain = cluster_skew_t(s, n, confidence)
    return replace(
        plain,
        low=max(-1.0, -down.high),
        high=min(1.0, up.high),
        method=_METHOD,
        reason=None,
    )


def _seen(s: Floats, n: Floats, confidence: float) -> Interval:
    """The interval whose upper end counts, with at least one event in the worst document."""
    s = s.copy()
    worst = int(np.argmax(s - s.sum() / n.sum() * n))
    s[worst] = max(s[worst], 1.0)
    return cluster_skew_t(s, n, confidence)
