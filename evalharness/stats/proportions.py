"""Intervals for proportions of items, where the normal one is wrong when it matters.

A task-score shift on binary items is a difference of paired proportions with few discordant
pairs; a Wald interval gives a false PASS 6–10% of the time where 5% is promised, Tango's score
interval 4–5%. A share of documents beyond a bound is one proportion, often 0 of n: Clopper and
Pearson's interval never promises too much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from scipy.special import betaincinv, ndtri

from evalharness.stats.interval import ONE_CLUSTER, Interval, check_confidence, no_interval

_NO_ITEMS = "no items"
_ONE_ITEM = ONE_CLUSTER.replace("document", "item")


_ROUNDING = 1e-12  # of counts that were scaled


def tango(b: float, c: float, n: float, confidence: float) -> Interval:
    """Return (b − c)/n, a difference of paired proportions, with Tango's score interval.

    Parameters
    ----------
    b, c : discordant pairs: with b = wrong → right and c = right → wrong the value is the
        candidate's score minus the reference's.
    n : all pairs, concordant ones included. Each is its own cluster; where some are not, all
        three scaled by one factor to an effective number of pairs.
    confidence : two-sided, in (0, 1).

    Returns
    -------
    Interval
        The differences Δ with |b − c − nΔ| ≤ z·√(n(2q̃ + Δ(1 − Δ))), q̃ the maximum-likelihood
        probability of c given Δ. Without any discordant pair it still is ±z²/(n + z²): no change
        seen in n items does not prove none. No interval from a single item.

    Raises
    ------
    ValueError
        For negative counts, b + c > n, or a confidence outside (0, 1).

    References
    ----------
    Tango 1998, Statistics in Medicine 17:891–908.

    """
    check_confidence(confidence)
    if min(b, c, n) < 0 or b + c > n * (1 + _ROUNDING):
        raise ValueError(f"b, c, n: must be at least 0 with b + c <= n (got {b}, {c}, {n})")
    method = "Tango score"
    if n == 0:
        return no_interval(None, confidence, 0, 0, method, _NO_ITEMS)
    value = (b - c) / n
    if n == 1:
        return no_interval(value, confidence, 1, 1, method, _ONE_ITEM)
    z = float(ndtri(0.5 + confidence / 2))
    low = _bisect(lambda delta: _tango_score(b, c, n, delta) - z, -1.0, value)
    high = _bisect(lambda delta: _tango_score(b, c, n, delta) + z, value, 1.0)
    se = math.sqrt(max(b + c - n * value**2, 0.0)) / n
    return Interval(value, low, high, confidence, round(n), round(n), method, se)


def paired_shift(b: float, c: float, n: float, confidence: float) -> Interval:
    """Return (b − c)/n with Tango's interval, exact where all changes go one way.

    Where none goes the other way Tango's ends are Wilson's, which are too near for rare changes:
    a drop at the limit passes 6.7% of the time where n is large, 9% where it is 10. There the ends
    are no nearer than Clopper and Pearson's of the changes that were seen, none included. Over all
    probabilities of both changes at most 6.2% pass at 30 pairs and more, 6.8% at 10.

    Parameters and errors are those of `tango`.
    """
    found = tango(b, c, n, confidence)
    if found.low is None or found.high is None or (b > 0 and c > 0):
        return found
    low, high = found.low, found.high
    if b == 0:
        low = min(low, -float(clopper_pearson(min(c, n), n, confidence).high or 0.0))
    if c == 0:
        high = max(high, float(clopper_pearson(min(b, n), n, confidence).high or 0.0))
    return replace(found, low=low, high=high, method=f"{found.method}, exact for changes one way")


def _tango_score(b: float, c: float, n: float, delta: float) -> float:
    """Return Tango's statistic (b − c − nΔ)/√(n(2q̃ + Δ(1 − Δ))), which falls as Δ grows."""
    linear = -b - c + (2 * n - b + c) * delta
    constant = -c * delta * (1 - delta)
    root = math.sqrt(max(linear**2 - 8 * n * constant, 0.0))
    # the two forms of the same root: the one without cancellation
    q = (root - linear) / (4 * n) if linear <= 0 else -2 * constant / (root + linear)
    variance = n * (2 * q + delta * (1 - delta))
    gap = b - c - n * delta
    if variance <= 0:
        return 0.0 if gap == 0 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return the root of a falling function in [low, high], or the end where it has none."""
    if falling(low) <= 0:
        return low
    if falling(high) >= 0:
        return high
    for _ in range(80):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def clopper_pearson(k: float, n: float, confidence: float) -> Interval:
    """Return k/n with Clopper and Pearson's exact interval.

    Ends are the α/2 quantile of Beta(k, n − k + 1) and the 1 − α/2 quantile of
    Beta(k + 1, n − k); coverage is at least ``confidence`` for every true share. ``n`` counts
    independent documents or items; one of them gives no interval, as everywhere. Both may be
    scaled by one factor to an effective number.

    Raises
    ------
    ValueError
        Unless 0 <= k <= n, or for a confidence outside (0, 1).

    References
    ----------
    Clopper & Pearson 1934.

    """
    check_confidence(confidence)
    if not 0 <= k <= n:
        raise ValueError(f"k, n: must have 0 <= k <= n (got {k}, {n})")
    method = "Clopper-Pearson"
    if n == 0:
        return no_interval(None, confidence, 0, 0, method, _NO_ITEMS)
    value = k / n
    if n == 1:
        return no_interval(value, confidence, 1, 1, method, _ONE_ITEM)
    tail = (1 - confidence) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    se = math.sqrt(value * (1 - value) / n)
    return Interval(value, low, high, confidence, round(n), round(n), method, se)
