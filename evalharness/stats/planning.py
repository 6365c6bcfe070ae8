"""How much data settles a question: before a run, and after an inconclusive one.

Every ``confidence`` is two-sided, as an interval's is: 0.90 plans for the one-sided 5% of a gate.
"""

from __future__ import annotations

import math

from scipy.special import ndtri, stdtrit

from evalharness.stats.interval import Interval, check_confidence

_NEVER = 10**9  # more documents than that is "never"


def documents_needed(
    value: float, sigma_doc: float, limit: float, confidence: float, power: float = 0.8
) -> int | None:
    """Return the documents G after which a gate decides with probability ``power``.

    G = ((z_α + z_β)·σ_doc/(limit − δ))², rounded up and at least 2.

    Parameters
    ----------
    value : the expected true value δ, in the metric's unit.
    sigma_doc : standard deviation of a document's contribution: se·√G of a pilot interval.
    limit : the gate's limit, same unit.
    confidence : two-sided, in (0, 1).
    power : probability of deciding if the truth is ``value``.

    Returns
    -------
    int or None
        None where the value is at the limit, so that no number of documents decides.

    """
    z = _z_sum(confidence, power)
    if not (math.isfinite(value) and math.isfinite(limit) and math.isfinite(sigma_doc)):
        raise ValueError(f"value, limit, sigma_doc: must be finite ({value}, {limit}, {sigma_doc})")
    if sigma_doc < 0:
        raise ValueError(f"sigma_doc: must be at least 0, got {sigma_doc}")
    if value == limit:
        return None
    needed = (z * sigma_doc / (limit - value)) ** 2
    return max(2, math.ceil(needed)) if needed < _NEVER else None


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

    luck = max(0.0, float(ndtri(power)))

    def fits(clusters: int) -> bool:
        return (_t(clusters, confidence) + luck) * sigma * math.sqrt(have / clusters) < gap

    if _t(have, confidence) * sigma < gap:
        return 0
    low, high = have, 2 * have
    while not fits(high):
        low, high = high, 2 * high
        if high > _NEVER:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high - have


def _t(clusters: int, confidence: float) -> float:
    return float(stdtrit(clusters - 1, 0.5 + confidence / 2))


def _z_sum(confidence: float, power: float) -> float:
    check_confidence(confidence)
    if not 0 < power < 1:
        raise ValueError(f"power: must be in (0,1), got {power}")
    return float(ndtri(0.5 + confidence / 2) + ndtri(power))
