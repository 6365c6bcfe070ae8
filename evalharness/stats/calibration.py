"""Per-row calibration quantities, whose means gates can trust.

The difference of two ECEs is biased toward no change (two thirds of the damage hidden at a
thousand items), so a gate acts on plain means instead: the calibration score ℓ·(p̂ − y), with
ℓ = logit p̂, which is the slope of the log loss in log temperature at the model's own
temperature, and the Brier score. Their document sums go through ``cluster_ratio_t``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evalharness.stats.interval import Floats, finite_array

LOGIT_EPSILON = 1e-6  # p̂ is held to [ε, 1 − ε], that is abs ℓ <= 13.8, in every logit


def rows(conf: npt.ArrayLike, correct: npt.ArrayLike, side: str = "") -> tuple[Floats, Floats]:
    """Return confidences (N,) in [0, 1] and correctness (N,) in {0, 1} as float64, validated."""
    name = f"_{side}" if side else ""
    p = finite_array(f"conf{name}", conf)
    y = finite_array(f"correct{name}", correct)
    if p.shape != y.shape:
        raise ValueError(f"conf{name}, correct{name}: must have one length ({p.size}, {y.size})")
    if p.size and (p.min() < 0 or p.max() > 1):
        raise ValueError(f"conf{name}: must be in [0,1] (got {p.min()} to {p.max()})")
    if bool(np.any((y != 0) & (y != 1))):
        raise ValueError(f"correct{name}: must be 0 or 1")
    return p, y


def logit(conf: Floats) -> Floats:
    """Return ln(p̂/(1 − p̂)), p̂ first held to [ε, 1 − ε] with ε = 1e-6."""
    p = np.clip(conf, LOGIT_EPSILON, 1 - LOGIT_EPSILON)
    return np.asarray(np.log(p / (1 - p)), dtype=np.float64)


def calibration_score_sums(conf: npt.ArrayLike, correct: npt.ArrayLike) -> Floats:
    """Return the calibration score ℓ·(p̂ − y) of each row, ready to be summed per document.

    Its mean is 0 for a calibrated model, above 0 for an overconfident one and below 0 for an
    underconfident one, so a gate that minds both needs both ends.

    Parameters
    ----------
    conf : (N,) probability given to the top answer.
    correct : (N,) 1 where that answer was right, else 0.

    Returns
    -------
    (N,) float64, in nats. ℓ = logit p̂ with p̂ held to [1e-6, 1 − 1e-6].

    """
    p, y = rows(conf, correct)
    return logit(p) * (p - y)


def brier(conf: npt.ArrayLike, correct: npt.ArrayLike) -> Floats:
    """Return the top-label Brier score (p̂ − y)² of each row (N,), in [0, 1]; lower is better."""
    p, y = rows(conf, correct)
    return (p - y) ** 2
