"""A weighted mean of estimates from different data, with an interval made of their own intervals.

The items of MMLU's 57 tasks are 57 samples, not one: the error of their mean is that of each in
its share, added in squares. Zou and Donner's "method of variance estimates recovery" takes from
every part the distance to its own end, on the side that is asked, so that what each interval knows
of few flips and of skewness stays. Parts that share data have errors that may agree fully: their
distances are added as they are.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

from evalharness.stats.interval import Interval, no_interval

_ROUNDING = 1e-9  # of weights that sum to 1


def mean_of_parts(
    parts: Sequence[Interval],
    weights: Sequence[float],
    blocks: Sequence[Hashable] | None = None,
) -> Interval:
    """Return Σ w_k v_k with low = Σ w_k v_k − √Σ_B (Σ_{k in B} w_k (v_k − l_k))², high likewise.

    Parameters
    ----------
    parts : (K,) estimates, at one confidence.
    weights : (K,) at least 0, with sum 1.
    blocks : (K,) equal where parts share data. None: no two do.

    Returns
    -------
    Interval
        With all parts in one block its ends are the weighted means of theirs. ``clusters`` is the
        sum over blocks of the fewest of a part, or of a part that has but one. No interval where a
        part has none.

    Raises
    ------
    ValueError
        For no part, weights that are no weights, or confidences that differ.

    References
    ----------
    Zou & Donner 2008, Statistics in Medicine 27:1693-1702.

    """
    labels = list(range(len(parts))) if blocks is None else list(blocks)
    if not parts or not len(parts) == len(weights) == len(labels):
        raise ValueError(
            f"parts, weights, blocks: must be as many, and at least 1 (got {len(parts)}, "
            f"{len(weights)}, {len(labels)})"
        )
    if min(weights) < 0 or abs(math.fsum(weights) - 1) > _ROUNDING:
        raise ValueError(f"weights: must be at least 0 and sum to 1 (got {list(weights)})")
    confidence = parts[0].confidence
    if any(p.confidence != confidence for p in parts):
        raise ValueError("parts: must be at one confidence")
    n = sum(p.n for p in parts)
    clusters = _over(labels, [p.clusters for p in parts])
    method = _method(parts)
    known = [p.value for p in parts if p.value is not None]
    value = None
    if len(known) == len(parts):
        value = math.fsum(w * v for w, v in zip(weights, known))
    bare = next((p for p in parts if p.value is None), None)
    bare = bare or next((p for p in parts if p.low is None), None)
    if bare is not None or value is None:
        reason = (bare and bare.reason) or "a part has no interval"
        return no_interval(value, confidence, n, clusters, method, reason)
    below = [w * max(p.value - p.low, 0.0) for w, p in zip(weights, parts)]  # type: ignore[operator]
    above = [w * max(p.high - p.value, 0.0) for w, p in zip(weights, parts)]  # type: ignore[operator]
    errors = [p.se for p in parts if p.se is not None]
    se = None
    if len(errors) == len(parts):
        se = _combined(labels, [w * e for w, e in zip(weights, errors)])
    return Interval(
        value,
        value - _combined(labels, below),
        value + _combined(labels, above),
        confidence,
        n,
        clusters,
        method,
        se,
    )


def no_narrower(found: Interval, least: Interval) -> Interval:
    """Return ``found`` with its ends at least as far out as those that ``least`` has."""
    if found.low is None or found.high is None or least.low is None or least.high is None:
        return found
    return replace(
        found,
        low=min(found.low, least.low),
        high=max(found.high, least.high),
        method=f"{found.method}; no narrower than {least.method}",
    )


def _combined(labels: Sequence[Hashable], distances: Sequence[float]) -> float:
    """Add distances within a block, and blocks in squares."""
    sums: dict[Hashable, float] = {}
    for label, distance in zip(labels, distances):
        sums[label] = sums.get(label, 0.0) + distance
    return math.hypot(*sums.values())


def _over(labels: Sequence[Hashable], counts: Sequence[int]) -> int:
    """Add over blocks the fewest of each: what is shared is counted once."""
    fewest: dict[Hashable, int] = {}
    for label, count in zip(labels, counts):
        fewest[label] = min(fewest.get(label, count), count)
    return sum(fewest.values()) if min(counts) > 1 else min(counts)


def _method(parts: Sequence[Interval]) -> str:
    own = dict.fromkeys(p.method for p in parts)
    return f"MOVER over {len(parts)} of {' and '.join(list(own)[:2])}" + (
        " and others" if len(own) > 2 else ""
    )
