"""A mean of this run against the same mean of a stored run, over the documents that both have.

Both were measured on the same documents, and what makes a document hard for one candidate makes it
hard for the next: of the difference the part that they share is gone. With a correlation of .9 the
standard error is .45 of that of two separate means, so that a fifth of the documents do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from evalharness.metrics.clusters import Keys
from evalharness.metrics.evidence import Evidence, Floats
from evalharness.metrics.registry import Metric, Totals
from evalharness.spec.estimate import Scope
from evalharness.stats import Interval, bounded_mean_t, cluster_skew_t, tango

_CERTAIN = 0.5  # the confidence of an interval of which the value alone is wanted
_STEP = 1e-6  # of the numeric derivative


@dataclass(frozen=True)
class Outcomes:
    """What a mean is made of, by document or cluster of items, (G,) each."""

    keys: Keys
    sums: Floats
    counts: Floats  # above 0
    positions: str = ""  # the range that a slice takes of each document

    @property
    def mean(self) -> float:
        """Σ sums / Σ counts."""
        return float(self.sums.sum() / self.counts.sum())


@dataclass(frozen=True)
class Difference:
    """``value`` − slope · ``stored`` over the documents of both runs, with its interval."""

    value: float
    stored: float
    shared: int  # documents, or clusters of items
    here: int  # there are in this run
    interval: Interval


def outcomes(
    metric: Metric,
    evidence: Evidence,
    scope: Scope,
    totals_of: Callable[[Metric, Scope], Totals] | None = None,
) -> Outcomes | None:
    """What ``metric`` is made of; None where it is no mean over documents, or has no value.

    ``totals_of`` gives its totals where they are known without reading the records again.
    """
    keys = None if metric.totals is None else metric.keys(evidence, scope)
    if metric.totals is None or keys is None:
        return None
    totals = totals_of(metric, scope) if totals_of else metric.totals(evidence, scope)
    if isinstance(totals, str) or totals[0].shape != keys.shape:
        return None
    places = evidence.positions(scope)
    found = Outcomes(keys, *totals, "" if places is None else f"{places[0]}:{places[1]}")
    return _unique(found) if (found.counts > 0).any() else None


def _unique(found: Outcomes) -> Outcomes:
    """Sorted by key, without empty documents; what is twice the same document is one."""
    used = (found.counts > 0) & (found.keys != 0)
    keys, codes = np.unique(found.keys[used], return_inverse=True)
    sums, counts = (
        np.bincount(codes, x[used], keys.size).astype(np.float64)
        for x in (found.sums, found.counts)
    )
    return replace(found, keys=keys, sums=sums, counts=counts)


def compared(
    metric: Metric,
    now: Outcomes,
    stored: Outcomes,
    slope: float,
    confidence: float,
    widened: Callable[..., Interval] | None = None,
) -> Difference | None:
    """``metric`` of ``now`` less ``slope`` times that of ``stored``; None: no document is in both.

    Both means are linearised at their values (a ratio of sums, and what the metric makes of it), so
    that each document has one number: for a mean over the same tokens it is its own difference.

    Parameters
    ----------
    metric, now, stored, slope : what is compared.
    confidence : two-sided, of the interval.
    widened : makes the interval of an estimator hold where the run could stop early
        (`stats.sequence_of`).

    """
    if now.positions != stored.positions:
        return None
    _, a, b = np.intersect1d(now.keys, stored.keys, assume_unique=True, return_indices=True)
    if not a.size:
        return None
    s, n, s0, n0 = now.sums[a], now.counts[a], stored.sums[b], stored.counts[b]
    value, moved = _linear(metric, s, n)
    base, moved0 = _linear(metric, s0, n0)
    if _is_plain(metric, s, n) and np.array_equal(n, n0):
        d = s - slope * s0
    else:
        d = (value - slope * base) * n + moved - slope * moved0 * (n.sum() / n0.sum())
    whole = slope == 1 and all(bool(np.all(np.abs(x) == np.rint(np.abs(x)))) for x in (s, s0))
    return Difference(
        value, base, a.size, now.keys.size, _interval(metric, d, n, whole, confidence, widened)
    )


def _linear(metric: Metric, s: Floats, n: Floats) -> tuple[float, Floats]:
    """The metric's value, and what each document moves it by, times all rows."""
    mean = float(s.sum() / n.sum())
    value = _value(metric, mean)
    if _is_plain(metric, s, n):
        return value, s - mean * n
    step = _STEP * max(1.0, abs(mean))
    rise = (_value(metric, mean + step) - _value(metric, mean - step)) / (2 * step)
    return value, rise * (s - mean * n)


def _is_plain(metric: Metric, s: Floats, n: Floats) -> bool:
    mean = float(s.sum() / n.sum())
    return _value(metric, mean) == mean


def _value(metric: Metric, mean: float) -> float:
    """What the metric makes of a mean, such as its exponential."""
    found = metric.transform(Interval(mean, mean, mean, _CERTAIN, 1, 1, "")).value
    assert found is not None
    return found


def _interval(
    metric: Metric,
    d: Floats,
    n: Floats,
    whole: bool,
    confidence: float,
    widened: Callable[..., Interval] | None,
) -> Interval:
    """The interval of Σ d / Σ n.

    That nothing changed among a few does not show that nothing would. Scores of items are right or
    wrong (Tango), or are joined by a cluster that is lost altogether; a share of tokens is joined
    by a document in which one token changed.
    """
    if widened is None and _of_items(metric, n):
        if whole and n.max() == 1 and np.abs(d).max() <= 1:
            return tango(int((d > 0).sum()), int((d < 0).sum()), d.size, confidence)
        most = max(1.0, float((np.abs(d) / n).max()))
        return bounded_mean_t(d, n, confidence, -most, most)
    event = 1.0 if metric.unit == "fraction" else 0.0
    estimator = partial(cluster_skew_t, event=event)
    if widened is None:
        return estimator(d, n, confidence)
    return widened(estimator, d, n, confidence)


def _of_items(metric: Metric, n: Floats) -> bool:
    """Whether a row is an item, or a document as one, whose score lies between known bounds."""
    return metric.records == "items" or (metric.unit == "fraction" and n.max() == 1)
