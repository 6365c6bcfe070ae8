"""The temperature that would calibrate a model, fitted on top-label confidences.

One number that people can act on: T above 1 says overconfident, below 1 underconfident (Guo et
al., arXiv 1706.04599). The log loss is convex in β = 1/T, so Newton's method finds it in a few
passes, and leaving a document out moves β by one Newton step made of two document sums.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from evalharness.stats.calibration import logit, rows
from evalharness.stats.interval import (
    NO_CLUSTERS,
    ONE_CLUSTER,
    Floats,
    Interval,
    check_confidence,
    code_array,
    no_interval,
)
from evalharness.stats.skewness import jackknife_skew_t

_COLDEST = 1e-3  # a fitted T below this, or above its inverse, is no fit
_STEPS = 60


def inverse_temperature(x: Floats, y: Floats) -> float | None:
    """Return β = 1/T at the minimum of Σ ln(1 + e^{βx}) − yβx, by bracketed Newton steps.

    Parameters
    ----------
    x : (N,) logits of the confidences.
    y : (N,) 1 where the answer was right, else 0.

    Returns
    -------
    float or None
        None where no T in (0.001, 1000) is best: no rows, every row right (or wrong) on the side
        its confidence is on, or confidence that tells nothing.

    """
    low, high = _COLDEST, 1 / _COLDEST
    if x.size == 0 or _slope(low, x, y)[0] >= 0 or _slope(high, x, y)[0] <= 0:
        return None
    beta = 1.0
    for _ in range(_STEPS):
        slope, curvature = _slope(beta, x, y)
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = beta - slope / curvature if curvature > 0 else math.inf
        if not low < step < high:
            step = math.sqrt(low * high)
        if abs(step - beta) <= 1e-12 * beta:
            return step
        beta = step
    return beta


def _slope(beta: float, x: Floats, y: Floats) -> tuple[float, float]:
    """Return the first and second derivative of the log loss in β."""
    s = expit(beta * x)
    return float(x @ (s - y)), float((x * x) @ (s * (1 - s)))


def temperature_shift(
    conf_ref: npt.ArrayLike,
    correct_ref: npt.ArrayLike,
    conf_cand: npt.ArrayLike,
    correct_cand: npt.ArrayLike,
    clusters: npt.ArrayLike,
    confidence: float,
) -> Interval:
    """Return the candidate's fitted temperature minus the reference's, with a paired jackknife.

    Leaving out document g moves β = 1/T to β + s_g/(h − h_g), one Newton step from the document's
    share s_g of the slope and h_g of the curvature; T_(g) = 1/β_(g) is jackknifed for both sides
    together, Student t on G − 1 degrees of freedom adjusted for skewness.

    Parameters
    ----------
    conf_ref, correct_ref, conf_cand, correct_cand : (N,) rows of both sides in the same order.
    clusters : (N,) integer codes 0 … G−1 of the row's document.
    confidence : two-sided, in (0, 1).

    Returns
    -------
    Interval
        Without a value where a side has no best temperature, without an interval from one
        document.

    """
    check_confidence(confidence)
    method = "paired cluster jackknife t of fitted temperature, skewness-adjusted"
    sides = rows(conf_ref, correct_ref, "ref"), rows(conf_cand, correct_cand, "cand")
    length = sides[0][0].size
    if sides[1][0].size != length:
        raise ValueError(f"both sides: must have one length ({length}, {sides[1][0].size})")
    codes = code_array("clusters", clusters, length)
    n = np.bincount(codes)
    used = int(np.count_nonzero(n))
    if used == 0:
        return no_interval(None, confidence, 0, 0, method, NO_CLUSTERS)
    fitted = []
    for name, (p, y) in zip(("reference", "candidate"), sides, strict=True):
        x = logit(p)
        beta = inverse_temperature(x, y)
        if beta is None:
            reason = f"no temperature is best for the {name}: its confidence does not fit one"
            return no_interval(None, confidence, length, used, method, reason)
        s = expit(beta * x)
        slope = np.bincount(codes, weights=x * (s - y))[n > 0]
        curvature = np.bincount(codes, weights=x * x * s * (1 - s))[n > 0]
        fitted.append((beta, slope, curvature))
    value = 1 / fitted[1][0] - 1 / fitted[0][0]
    if used == 1:
        return no_interval(value, confidence, length, 1, method, ONE_CLUSTER)
    without = []
    for beta, slope, curvature in fitted:
        rest = float(curvature.sum()) - curvature
        moved = beta + slope / np.where(rest > 0, rest, np.inf)
        if bool(np.any(rest <= 0)) or bool(np.any(moved <= _COLDEST)):
            reason = "one document decides the temperature: there is no interval without it"
            return no_interval(value, confidence, length, used, method, reason)
        without.append(1 / moved)
    left_out = np.sort(without[1] - without[0])
    return jackknife_skew_t(value, left_out.mean() - left_out, confidence, length, method)
