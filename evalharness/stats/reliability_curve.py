"""A smooth reliability curve, for a picture: accuracy as a function of confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evalharness.stats.calibration import rows
from evalharness.stats.interval import Floats


@dataclass(frozen=True)
class ReliabilityCurve:
    """Smoothed accuracy against confidence, for a picture."""

    grid: Floats  # (K,) confidences
    accuracy: Floats  # (K,) kernel mean of correctness
    density: Floats  # (K,) kernel density of the confidences


def smooth_reliability(
    conf: npt.ArrayLike, correct: npt.ArrayLike, bandwidth: float, grid: npt.ArrayLike
) -> ReliabilityCurve:
    """Return the reliability curve under a Gaussian kernel reflected at 0 and 1.

    Rows are first put on 4,096 equal cells, which a bandwidth of at least 0.001 cannot see.

    Parameters
    ----------
    conf, correct : (N,) as in :func:`ece`.
    bandwidth : standard deviation of the kernel, in confidence, in [0.001, 1].
    grid : (K,) confidences in [0, 1] at which to read the curve.

    Returns
    -------
    ReliabilityCurve
        ``accuracy`` is Σ K(t, p̂)·y / Σ K(t, p̂) for each grid point t; ``density`` integrates
        to 1 over [0, 1].

    References
    ----------
    Błasiok & Nakkiran 2023, arXiv 2309.12236 (smooth ECE and its diagram).

    """
    p, y = rows(conf, correct)
    at, _ = rows(grid, np.zeros(np.shape(grid)), "grid")
    if p.size == 0:
        raise ValueError("conf: must hold at least one row")
    if not 0.001 <= bandwidth <= 1:
        raise ValueError(f"bandwidth: must be in [0.001,1], got {bandwidth}")
    cells = 4096
    cell = np.minimum((p * cells).astype(np.intp), cells - 1)
    n = np.bincount(cell, minlength=cells).astype(np.float64)
    right = np.bincount(cell, weights=y, minlength=cells)
    centre = (np.arange(cells) + 0.5) / cells
    kernel = np.zeros((at.size, cells))
    for turn in range(-5, 6):  # reflections: 2k ± p, enough for a bandwidth of 1
        for mirrored in (2 * turn + centre, 2 * turn - centre):
            kernel += np.exp(-0.5 * ((at[:, None] - mirrored) / bandwidth) ** 2)
    kernel /= bandwidth * math.sqrt(2 * math.pi)
    mass = kernel @ n  # (K,)
    accuracy = (kernel @ right) / np.maximum(mass, 1e-300)
    return ReliabilityCurve(at, accuracy, mass / p.size)
