"""Intervals that hold at every moment at once, so that a run may stop whenever it is clear.

For means: the asymptotic confidence sequence of Waudby-Smith et al. (arXiv 2103.06476). For rates
in [0, 1]: the hedged capital of Waudby-Smith & Ramdas (arXiv 2010.09686), which holds from the
first document on and not only in the limit. Both ask for documents in a seeded random order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from evalharness.stats.interval import (
    Floats,
    Interval,
    check_confidence,
    count_array,
    finite_array,
)
from evalharness.stats.means import ratio_se, too_few, used_clusters

BURN_IN = 30  # documents before an asymptotic sequence is believed

_BOLD = (0.4, 0.95)  # share of its capital that each half of the bettor may lose on a document


def mean_sequence(
    sums: npt.ArrayLike,
    counts: npt.ArrayLike,
    confidence: float,
    tuned_for: int,
    burn_in: int = BURN_IN,
) -> Interval:
    """Return Σ S_g/Σ n_g with the present interval of an asymptotic confidence sequence.

    With G documents, σ̂ = se·√G of the linearised ratio and α = 1 − confidence, the half-width is

        σ̂·√( 2(Gρ² + 1)/(G²ρ²) · ln(√(Gρ² + 1)/α) ).

    Parameters
    ----------
    sums, counts : (G,) totals of the documents seen so far, unit of the sums kept.
    confidence : two-sided over all time, in (0, 1).
    tuned_for : documents at which the sequence should be narrowest, fixed before the run
        (a fifth to a half of those planned); it sets ρ² = (−2 ln α + ln(−2 ln α) + 1)/tuned_for.
    burn_in : documents before which there is no interval.

    Raises
    ------
    ValueError
        For NaN or infinite input, ``tuned_for`` < 1, or a confidence outside (0, 1).

    References
    ----------
    Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2021, arXiv 2103.06476, theorem 2.2.

    """
    check_confidence(confidence)
    if tuned_for < 1:
        raise ValueError(f"tuned_for: must be at least 1, got {tuned_for}")
    s, n = used_clusters(sums, counts)
    method = "asymptotic confidence sequence"
    if (few := too_few(s, n, confidence, method, max(burn_in, 2))) is not None:
        return few
    size, total = s.size, float(n.sum())
    value, se = float(s.sum()) / total, ratio_se(s, n)
    half = _standard_errors(size, confidence, tuned_for) * se
    return Interval(value, value - half, value + half, confidence, int(total), size, method, se)


def sequence_of(
    estimator: Callable[..., Interval],
    sums: npt.ArrayLike,
    counts: npt.ArrayLike,
    confidence: float,
    tuned_for: int,
) -> Interval:
    """Return ``estimator``'s own interval, as many standard errors wide as :func:`mean_sequence`.

    A sequence is symmetric: what is known of skewness, and of documents that were not drawn, is in
    the interval of ``estimator(sums, counts, confidence)``, on G − 1 degrees of freedom. Other
    arguments, the burn-in and errors as there.
    """
    sequence = mean_sequence(sums, counts, confidence, tuned_for)
    if sequence.low is None:
        return sequence
    t = _standard_errors(sequence.clusters, confidence, tuned_for)
    wide = min(1 - 2 * float(stdtr(sequence.clusters - 1, -t)), 1 - 1e-12)
    found = estimator(sums, counts, wide)
    method = f"{found.method}, at the width of an {sequence.method}"
    return replace(found, confidence=confidence, method=method)


def _standard_errors(size: int, confidence: float, tuned_for: int) -> float:
    """Half the width of an asymptotic sequence after ``size`` documents, in standard errors."""
    alpha = 1 - confidence
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / tuned_for
    grown = size * rho2 + 1
    return math.sqrt(2 * grown / (size * rho2) * math.log(math.sqrt(grown) / alpha))


def rate_sequence(
    sums: npt.ArrayLike, counts: npt.ArrayLike, confidence: float, longest: int
) -> Interval:
    """Return the rate Σ S_g/Σ n_g with the present interval of a betting confidence sequence.

    A bettor against rate m stakes on each document in turn; its capital after document g is
    multiplied by 1 ± λ_g·(S_g − m·n_g)/``longest``, λ_g set from earlier documents only (one half
    of the capital is staked more boldly than the other). Rates at which it ever reached 2/α are
    out. Capital falls (or rises) in m, so bisection finds the ends.

    Order matters: it must be the one in which documents were drawn. The bet allows for a document
    of nothing but events, so for low rates over long documents :func:`mean_sequence` is much
    narrower once its burn-in is over.

    Parameters
    ----------
    sums : (G,) events in each document, 0 <= S_g <= n_g, in the order seen.
    counts : (G,) tokens or items of each document; documents with 0 are dropped.
    confidence : two-sided over all time, in (0, 1).
    longest : a bound on ``counts`` fixed before the run; 1 for items.

    Returns
    -------
    Interval
        From the first document on wide, but valid; none from a single document, as everywhere.

    References
    ----------
    Waudby-Smith & Ramdas 2020, arXiv 2010.09686, §4.4 (hedged capital, λ of equation 26).

    """
    check_confidence(confidence)
    s, n = finite_array("sums", sums), count_array("counts", counts)
    if s.shape != n.shape:
        raise ValueError(f"sums and counts: must have one shape (got {s.shape} and {n.shape})")
    if bool(np.any((s < 0) | (s > n))):
        raise ValueError("sums: must be between 0 and the count: a rate lies in [0,1]")
    s, n = s[n > 0], n[n > 0]
    if n.size and longest < n.max():
        raise ValueError(f"longest: must be at least the largest count {n.max():g}, got {longest}")
    method = "betting confidence sequence"
    if (few := too_few(s, n, confidence, method)) is not None:
        return few
    value = float(s.sum() / n.sum())
    stakes = _stakes(s, n, confidence, longest)
    threshold = math.log(2 / (1 - confidence)) + math.log(len(_BOLD))  # the halves' mean

    def refuted(rate: float, sign: float) -> bool:
        """Whether betting that the truth is above (+1) or below (−1) this rate ever paid."""
        gain = sign * (s - rate * n) / longest  # (G,) at least −room
        room = max(rate if sign > 0 else 1 - rate, 1e-12)
        halves = [np.cumsum(np.log1p(np.minimum(stakes, b / room) * gain)) for b in _BOLD]
        return bool(np.logaddexp(*halves).max() >= threshold)

    low = _boundary(lambda rate: refuted(rate, 1.0), 0.0, value)
    high = _boundary(lambda rate: refuted(rate, -1.0), 1.0, value)
    return Interval(value, low, high, confidence, int(n.sum()), s.size, method)


def _stakes(s: Floats, n: Floats, confidence: float, longest: int) -> Floats:
    """Return the stake λ_g on each document (G,), from the documents before it.

    λ_g = √(2 ln(2/α) / (v_{g−1}·g·ln(1 + g))), v the running variance of (S − r n)/longest about
    the running rate r, started as if from one document of rate 1/2 and variance 1/4.
    """
    g = np.arange(1, s.size + 1)
    rate = (0.5 * longest + np.cumsum(s)) / (longest + np.cumsum(n))
    squares = np.cumsum(((s - rate * n) / longest) ** 2)
    variance = np.concatenate([[0.25], ((0.25 + squares) / (g + 1))[:-1]])
    return np.sqrt(2 * math.log(2 / (1 - confidence)) / (variance * g * np.log1p(g)))


def _boundary(refuted: Callable[[float], bool], end: float, value: float) -> float:
    """Return where between ``end`` and ``value`` rates stop being refuted, on the safe side."""
    if not refuted(end):
        return end
    outside, inside = end, value
    if refuted(value):
        return value
    for _ in range(50):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if refuted(middle) else (outside, middle)
    return outside
