"""Looking before the end: a few planned looks, without spending the error twice.

Deciding at every look with an ordinary interval errs 58% of the time at the limit. O'Brien and
Fleming's boundaries, in the α-spending form of Lan & DeMets (1983), ask for overwhelming evidence
early and almost nothing extra at the end; each look needs only the share of the data seen, so
documents must come in a seeded random order, and their lengths may differ. Bounds follow from
the recursion of Armitage, McPherson & Rowe (1969) over the joint density of the scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy.special import ndtr, ndtri

from evalharness.stats.interval import Floats, check_confidence, finite_array

_STEP = 0.02  # of the integration grid, in standard errors of the last look
_LOWEST = -9.0  # where the density of a standard normal score is cut


def obrien_fleming(alpha: float, fractions: Sequence[float]) -> Floats:
    """Return the one-sided boundary z_k of each look.

    Up to fraction t of the data α*(t) = 2·(1 − Φ(z_{1−α/2}/√t)) of the error is spent; z_k solves
    P(Z_1 < z_1, …, Z_{k−1} < z_{k−1}, Z_k >= z_k) = α*(t_k) − α*(t_{k−1}) for scores with
    correlation √(t_i/t_j). With one-sided α = .025 and five equal looks: 4.88, 3.36, 2.68, 2.29,
    2.03.

    Parameters
    ----------
    alpha : one-sided, in (0, 0.5).
    fractions : (K,) rising shares of the data at each look, in (0, 1]; a last one below 1 is a
        stop before the end.

    Returns
    -------
    (K,) boundaries on the z scale; a look's nominal one-sided level is 1 − Φ(z_k).

    References
    ----------
    O'Brien & Fleming 1979; Lan & DeMets 1983; Jennison & Turnbull 1999, ch. 19.

    """
    t = _check_fractions(alpha, fractions)
    return np.array(_boundaries(alpha, tuple(t.tolist())))


def look_confidence(confidence: float, fractions: Sequence[float]) -> float:
    """Return the confidence at which to make a metric's own interval at the last of these looks.

    Two-sided, 1 − 2·(1 − Φ(z_k)). Intervals made so at every look hold all together at
    ``confidence``: repeated confidence intervals (Jennison & Turnbull 1989). One beyond a limit at
    any look is a verdict, and it is the interval to report after stopping.

    Parameters
    ----------
    confidence : two-sided over all looks, in (0, 1).
    fractions : shares of the data at every look so far, this one last.

    """
    check_confidence(confidence)
    z = float(obrien_fleming((1 - confidence) / 2, fractions)[-1])
    return 1 - 2 * float(ndtr(-z))


@cache
def _boundaries(alpha: float, fractions: tuple[float, ...]) -> tuple[float, ...]:
    t = np.array(fractions)
    spent = 2 * ndtr(-ndtri(1 - alpha / 2) / np.sqrt(t))
    to_spend = np.diff(spent, prepend=0.0)
    # scores on the scale of a Brownian motion, W(t) = Z·√t: steps are independent
    bounds = np.empty(t.size)
    grid, density = np.zeros(1), np.ones(1)  # W(0) = 0
    before = 0.0
    for k, (now, spend) in enumerate(zip(t, to_spend, strict=True)):
        sd = math.sqrt(now - before)
        bound = _upper(grid, density, sd, float(spend), math.sqrt(now))
        bounds[k] = bound / math.sqrt(now)
        fresh = _nodes(min(_LOWEST * math.sqrt(now), bound - 1.0), bound, sd)
        step = (fresh[:, None] - grid[None, :]) / sd
        phi = np.exp(-0.5 * step**2) / (sd * math.sqrt(2 * math.pi))
        density = (phi @ density) * _weights(fresh)
        grid, before = fresh, float(now)
    return tuple(bounds.tolist())


def _check_fractions(alpha: float, fractions: Sequence[float]) -> Floats:
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha: must be in (0,0.5), got {alpha}")
    t = finite_array("fractions", fractions)
    if t.size == 0 or t[0] <= 0 or t[-1] > 1 + 1e-9 or bool(np.any(np.diff(t) <= 0)):
        raise ValueError(f"fractions: must rise within (0,1], got {tuple(fractions)}")
    return t


def _nodes(low: float, high: float, sd: float) -> Floats:
    """Return an odd number of equally spaced points, fine against the next step's spread."""
    points = int((high - low) / min(_STEP, sd / 20)) | 1
    return np.linspace(low, high, max(points, 3))


def _weights(grid: Floats) -> Floats:
    """Return Simpson's weights for an odd number of equally spaced points."""
    w = np.ones(grid.size)
    w[1:-1:2], w[2:-1:2] = 4.0, 2.0
    return np.asarray(w * (grid[1] - grid[0]) / 3, dtype=np.float64)


def _upper(grid: Floats, density: Floats, sd: float, spend: float, scale: float) -> float:
    """Return b with ∫ density(w)·P(W + sd·N >= b) dw = ``spend``, by bisection."""
    low, high = -10.0 * scale, 12.0 * scale
    for _ in range(80):
        middle = (low + high) / 2
        beyond = float(density @ ndtr((grid - middle) / sd))
        low, high = (middle, high) if beyond > spend else (low, middle)
    return (low + high) / 2
