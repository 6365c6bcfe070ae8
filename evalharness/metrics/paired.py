"""A mean of this run against the same mean of a stored run, over the documents that both have.

Both were measured on the same documents, and what makes a document hard for one candidate makes it
hard for the next: of the difference the part that they share is gone. With a correlation of .9 the
standard error is .45 of that of two separate means, so that a fifth of the documents do.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from evalharness.metrics.clusters import Keys
from evalharness.metrics.evidence import Evidence, Floats
from evalharness.metrics.registry import Metric, Totals
from evalharness.spec.estimate import Scope
from evalharness.stats import (
    Interval,
    bounded_mean_t,
    cluster_skew_t,
    mean_of_parts,
    no_narrower,
    paired_shift,
)

Widened = Callable[..., Interval]
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


@dataclass(frozen=True)
class _Joint:
    """The documents that two runs have, with one number each."""

    value: float
    stored: float
    here: int
    d: Floats  # Σ d / Σ n is value − slope · stored
    n: Floats
    changes: bool  # each is an item that changed for the worse (−1), for the better (1) or not (0)

    @property
    def most(self) -> float:
        """The most that an item can change by: all of its score, unless more is seen."""
        return max(1.0, float((np.abs(self.d) / self.n).max()))

    def difference(self, interval: Interval) -> Difference:
        """With its interval."""
        return Difference(self.value, self.stored, self.d.size, self.here, interval)


def compared(
    metric: Metric,
    now: Outcomes,
    stored: Outcomes,
    slope: float,
    confidence: float,
    widened: Widened | None = None,
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
    joint = _joint(metric, now, stored, slope)
    if joint is None:
        return None
    return joint.difference(_interval(metric, joint, confidence, widened))


def compared_parts(
    metric: Metric,
    parts: Sequence[tuple[Outcomes, Outcomes]],
    weights: Sequence[float],
    blocks: Sequence[Hashable],
    slope: float,
    confidence: float,
) -> Difference | None:
    """The weighted mean of what `compared` finds of each part, with an interval made of theirs.

    As a group's own interval it is no narrower than that of all items as one sample: made of two
    halves, a task is no surer than it was whole.

    Parameters
    ----------
    parts : of each task, this run's and the stored one's.
    weights, blocks : of each, as `mean_of_parts` takes them.

    """
    each = [_joint(metric, now, stored, slope) for now, stored in parts]
    found = [one for one in each if one is not None]
    if len(found) < len(parts):
        return None
    own = [_interval(metric, one, confidence, None) for one in found]
    interval = mean_of_parts(own, weights, blocks)
    value, base = (
        sum(w * getattr(one, name) for w, one in zip(weights, found, strict=True))
        for name in ("value", "stored")
    )
    shared, here = sum(one.d.size for one in found), sum(one.here for one in found)
    whole = _as_one(found, weights, confidence)
    return Difference(value, base, shared, here, no_narrower(interval, whole))


def _as_one(parts: Sequence[_Joint], weights: Sequence[float], confidence: float) -> Interval:
    """All items as one sample, as large as one of equal weights would be (Kish 1965)."""
    if all(one.changes for one in parts):
        size = 1 / sum(w * w / one.d.size for w, one in zip(weights, parts, strict=True))
        up, down = (
            size * sum(w * float((s * j.d > 0).mean()) for w, j in zip(weights, parts, strict=True))
            for s in (1, -1)
        )
        return paired_shift(up, down, size, confidence)
    n = np.concatenate([one.n for one in parts])
    scaled = [w * n.sum() / one.n.sum() * one.d for w, one in zip(weights, parts, strict=True)]
    most = max(one.most for one in parts)
    return bounded_mean_t(np.concatenate(scaled), n, confidence, -most, most)


def _joint(metric: Metric, now: Outcomes, stored: Outcomes, slope: float) -> _Joint | None:
    """What is in both; None: nothing."""
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
    whole = slope == 1 and all(bool(np.all(x == np.rint(x))) for x in (s, s0))
    changes = whole and bool(n.max() == 1 and np.abs(d).max() <= 1)
    return _Joint(value, base, now.keys.size, d, n, changes)


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
    metric: Metric, joint: _Joint, confidence: float, widened: Widened | None
) -> Interval:
    """The interval of Σ d / Σ n.

    That nothing changed among a few does not show that nothing would. Scores of items are right or
    wrong (Tango), or are joined by a cluster that is lost altogether; a share of tokens is joined
    by a document in which one token changed.
    """
    d, n = joint.d, joint.n
    if widened is None and _of_items(metric, n):
        if joint.changes:
            return paired_shift(int((d > 0).sum()), int((d < 0).sum()), d.size, confidence)
        return bounded_mean_t(d, n, confidence, -joint.most, joint.most)
    estimator = partial(cluster_skew_t, event=1.0 if metric.unit == "fraction" else 0.0)
    if widened is None:
        return estimator(d, n, confidence)
    return widened(estimator, d, n, confidence)


def _of_items(metric: Metric, n: Floats) -> bool:
    """Whether a row is an item, or a document as one, whose score lies between known bounds."""
    return metric.records == "items" or (metric.unit == "fraction" and n.max() == 1)
