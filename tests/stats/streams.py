"""Synthetic documents with known truths, for tests that count how often an interval covers."""

from __future__ import annotations

import numpy as np

from evalharness.stats.interval import Floats


def document_totals(
    rng: np.random.Generator, documents: int, icc: float, rho: float, truth: float = 0.0
) -> tuple[Floats, Floats]:
    """Draw sums and counts (G,) of AR(1) streams of unit variance with document effects.

    A document's sum is drawn directly: its tokens' long-run variance is (1 + ρ)/(1 − ρ), its
    effect is Student's t on 5 degrees of freedom, its length lognormal with mean 1000.
    """
    counts = np.clip(rng.lognormal(np.log(1000) - 0.15, 0.55, documents), 32, None).round()
    inflation = (1 + rho) / (1 - rho)
    within = rng.standard_normal(documents) * np.sqrt((1 - icc) * inflation * counts)
    effect = rng.standard_t(5, documents) * np.sqrt(icc * 3 / 5)
    return counts * (truth + effect) + within, counts


def predictions(
    rng: np.random.Generator, documents: int, rows: int, sharpen: float
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Draw both sides' confidences and correctness, and document codes.

    The reference is calibrated but for document effects; the candidate's logits are noisier and
    ``sharpen`` times as large.
    """
    codes = np.repeat(np.arange(documents), rows)
    logits = rng.normal(0.8, 1.5, codes.size)
    chance = 1 / (1 + np.exp(-(logits + rng.normal(0, 0.3, documents)[codes])))
    right = rng.random(codes.size) < chance
    again = np.where(rng.random(codes.size) < 0.8, right, rng.random(codes.size) < chance)
    blurred = sharpen * (logits + rng.normal(0, 0.3, codes.size))
    return (
        1 / (1 + np.exp(-logits)),
        right.astype(np.float64),
        1 / (1 + np.exp(-blurred)),
        again.astype(np.float64),
        codes,
    )
