"""How far confidence is from accuracy, in bins, and how that shifts between two sides.

ECE (Naeini et al. 2015) is shown because everybody knows it, with equal-mass bins (Nixon et al.
2019) and the value a perfectly calibrated model would read by chance. What can be gated is the
squared error with that chance part removed (Kumar et al., arXiv 1909.10155): here per bin as
the products of *different* documents only, which is unbiased even when tokens of one document
go wrong together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evalharness.stats.calibration import rows
from evalharness.stats.interval import (
    NO_CLUSTERS,
    ONE_CLUSTER,
    Codes,
    Floats,
    Interval,
    check_confidence,
    code_array,
    no_interval,
)
from evalharness.stats.resample import (
    canonical_order,
    check_replicates,
    percentile_ends,
    resampled,
)
from evalharness.stats.skewness import jackknife_skew_t

BINS = 15
_UNPAIRED = "no bin holds two documents: a squared error without bias takes pairs of them"
_HANGS_ON_ONE = "no bin holds two documents once a certain one is left out, so no spread is known"


@dataclass(frozen=True)
class CalibrationBin:
    """One equal-mass bin of rows: how many, how sure they were, how often they were right."""

    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Ece:
    """An expected calibration error, its bins, and what chance alone would read."""

    value: float
    noise_floor: float
    n: int
    bins: tuple[CalibrationBin, ...]


def bin_codes(conf: Floats, bins: int) -> Codes:
    """Return the equal-mass bin 0 … ``bins`` − 1 of each row.

    Interior edges are quantiles of the confidences, so equal confidences share a bin, row order
    changes nothing, and a confidence of exactly 1 is in the last bin rather than one more.
    """
    if conf.size == 0:
        return np.zeros(0, dtype=np.intp)
    edges = np.quantile(conf, np.arange(1, bins) / bins)
    return np.searchsorted(edges, conf, side="right").astype(np.intp)


def ece(conf: npt.ArrayLike, correct: npt.ArrayLike, bins: int = BINS) -> Ece:
    """Return the expected calibration error Σ_b n_b/n·|accuracy_b − confidence_b|.

    Parameters
    ----------
    conf : (N,) probability given to the top answer, N at least 1.
    correct : (N,) 1 where that answer was right, else 0.
    bins : equal-mass bins; those that ties leave empty are not returned.

    Returns
    -------
    Ece
        With the noise floor √(2/π)·√(B·v̄/n), v̄ = mean p̂(1 − p̂), B the bins in use: what a
        perfectly calibrated model reads on average.

    """
    p, y = rows(conf, correct)
    if p.size == 0:
        raise ValueError("conf: must hold at least one row")
    codes = bin_codes(p, bins)
    n = np.bincount(codes, minlength=bins)
    sum_p = np.bincount(codes, weights=p, minlength=bins)
    sum_y = np.bincount(codes, weights=y, minlength=bins)
    used = np.flatnonzero(n)
    held = tuple(
        CalibrationBin(int(n[b]), float(sum_p[b] / n[b]), float(sum_y[b] / n[b])) for b in used
    )
    value = float(np.abs(sum_y - sum_p).sum() / p.size)
    spread = float((p * (1 - p)).mean())
    floor = math.sqrt(2 / math.pi) * math.sqrt(len(held) * spread / p.size)
    return Ece(value, floor, p.size, held)


@dataclass(frozen=True)
class _Totals:
    """Per-document totals in each bin, one entry per side."""

    gap: list[Floats]  # (G, B) Σ (y − p̂)
    size: list[Floats]  # (G, B) rows
    n: Floats  # (G,) rows of each document


def _pairs(
    conf_ref: npt.ArrayLike,
    correct_ref: npt.ArrayLike,
    conf_cand: npt.ArrayLike,
    correct_cand: npt.ArrayLike,
) -> list[tuple[Floats, Floats]]:
    pairs = [rows(conf_ref, correct_ref, "ref"), rows(conf_cand, correct_cand, "cand")]
    lengths = [p.size for p, _ in pairs]
    if lengths[0] != lengths[1]:
        raise ValueError(f"both sides: must have one length (got {lengths[0]} and {lengths[1]})")
    return pairs


def _totals(pairs: list[tuple[Floats, Floats]], clusters: npt.ArrayLike) -> _Totals:
    """Sum each side's bins per document, documents in an order neither reading nor sides change."""
    document = code_array("clusters", clusters, pairs[0][0].size)
    n = np.bincount(document).astype(np.float64)
    shape, cells = (n.size, BINS), n.size * BINS
    gap, size = [], []
    for p, y in pairs:
        cell = document * BINS + bin_codes(p, BINS)
        sums = np.bincount(cell, weights=y - p, minlength=cells).astype(np.float64)
        gap.append(sums.reshape(shape))
        size.append(np.bincount(cell, minlength=cells).astype(np.float64).reshape(shape))
    either = [gap[0] + gap[-1], np.abs(gap[0] - gap[-1]), size[0] + size[-1]]
    order = canonical_order(np.column_stack([n, *either]))
    order = order[n[order] > 0]
    return _Totals([g[order] for g in gap], [k[order] for k in size], n[order])


def ece_shift(
    conf_ref: npt.ArrayLike,
    correct_ref: npt.ArrayLike,
    conf_cand: npt.ArrayLike,
    correct_cand: npt.ArrayLike,
    clusters: npt.ArrayLike,
    confidence: float,
    replicates: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the candidate's ECE minus the reference's, with a paired cluster bootstrap.

    To be shown, not gated: the shift is biased toward 0 (Roelofs et al., arXiv 2012.08668). Where
    the truth is a shift of .05 at 1,000 items, percentile ends cover it 17% of the time and the
    reflected ends used here 58%; :func:`ce2_shift` and the calibration score cover 95%.

    Parameters
    ----------
    conf_ref, correct_ref, conf_cand, correct_cand : (N,) rows of both sides, the same rows in
        the same order.
    clusters : (N,) integer codes 0 … G−1 of the row's document.
    confidence : two-sided, in (0, 1).
    replicates, seed : how many resamples of documents, and where they start.

    Returns
    -------
    Interval
        15 equal-mass bins of each side, fixed over resamples. No interval from one document.

    """
    check_confidence(confidence)
    check_replicates(replicates, confidence)
    method = "reflected paired cluster bootstrap of ECE (biased to 0: shown, not gated)"
    sides = _totals(_pairs(conf_ref, correct_ref, conf_cand, correct_cand), clusters)
    total, used = int(sides.n.sum()), sides.n.size
    if used == 0:
        return no_interval(None, confidence, 0, 0, method, NO_CLUSTERS)
    stacked = np.column_stack([*sides.gap, sides.n])  # (G, 2B+1)
    value = float(_ece_gap(stacked.sum(axis=0)[None, :])[0])
    if used == 1:
        return no_interval(value, confidence, total, 1, method, ONE_CLUSTER)
    replicated = _ece_gap(resampled(stacked, replicates, seed))
    q_low, q_high = percentile_ends(replicated, confidence)
    se = float(replicated.std(ddof=1))
    low, high = min(2 * value - q_high, value), max(2 * value - q_low, value)
    return Interval(value, low, high, confidence, total, used, method, se)


def _ece_gap(totals: Floats) -> Floats:
    """Return ECE of the candidate − of the reference, (R,), from bin gaps and rows (R, 2B+1)."""
    gaps = np.abs(totals[:, :-1])
    difference = gaps[:, BINS:].sum(axis=1) - gaps[:, :BINS].sum(axis=1)
    return np.asarray(difference / totals[:, -1], dtype=np.float64)


def ce2_shift(
    conf_ref: npt.ArrayLike,
    correct_ref: npt.ArrayLike,
    conf_cand: npt.ArrayLike,
    correct_cand: npt.ArrayLike,
    clusters: npt.ArrayLike,
    confidence: float,
) -> Interval:
    """Return the shift of the debiased squared calibration error, with a paired jackknife.

    Arguments as in :func:`ece_shift`. With D_gb = Σ (y − p̂) over the rows of document g in bin b
    and n_gb their number, a side's error is

        Σ_b n_b/N · ((Σ_g D_gb)² − Σ_g D_gb²) / (n_b² − Σ_g n_gb²),

    the squared gap of each bin from products of two different documents. A bin in one document
    only adds nothing. With one row per document this is Kumar's debiased estimator up to the
    spread of confidences within a bin. It may be below 0, as an unbiased estimate of 0 must.

    Returns
    -------
    Interval
        Leave-one-document-out Student t on G − 1 degrees of freedom, adjusted for skewness, both
        sides left out together. No interval from one document, nor where no bin of a side holds two
        documents, or would not with one of them left out: the error is then 0 whatever the
        answers are.

    References
    ----------
    Kumar, Liang & Ma 2019, arXiv 1909.10155.

    """
    check_confidence(confidence)
    method = "paired cluster jackknife t of debiased squared calibration error, skewness-adjusted"
    sides = _totals(_pairs(conf_ref, correct_ref, conf_cand, correct_cand), clusters)
    total, used = int(sides.n.sum()), sides.n.size
    if used == 0:
        return no_interval(None, confidence, 0, 0, method, NO_CLUSTERS)
    if used == 1:
        return no_interval(None, confidence, total, 1, method, ONE_CLUSTER)
    pairs = [_left(size) for size in sides.size]
    if any(not found.any() for found in pairs):
        return no_interval(None, confidence, total, used, method, _UNPAIRED)
    errors, without = zip(*map(_ce2, sides.gap, sides.size), strict=True)
    value = float(errors[1] - errors[0])
    if any((found < 2).all(axis=1).any() for found in pairs):
        return no_interval(value, confidence, total, used, method, _HANGS_ON_ONE)
    left_out = without[1] - without[0]  # (G,)
    return jackknife_skew_t(value, left_out.mean() - left_out, confidence, total, method)


def _left(size: Floats) -> Codes:
    """Return (G, B) documents in each shared bin when one is left out; size is (G, B) rows."""
    held = size > 0
    count = held.sum(axis=0)
    return np.where(count > 1, count - held, 0)


def _ce2(gap: Floats, size: Floats) -> tuple[float, Floats]:
    """Return a side's debiased squared error, and (G,) the same without each document."""
    d, n = gap.sum(axis=0), size.sum(axis=0)  # (B,)
    d2, n2 = (gap**2).sum(axis=0), (size**2).sum(axis=0)

    def error(d: Floats, d2: Floats, n: Floats, n2: Floats) -> Floats:
        pairs = n**2 - n2
        squared = np.where(pairs > 0, (d**2 - d2) / np.where(pairs > 0, pairs, 1.0), 0.0)
        return np.asarray((n * squared).sum(axis=-1) / n.sum(axis=-1), dtype=np.float64)

    full = error(d, d2, n, n2)
    without = error(d - gap, d2 - gap**2, n - size, n2 - size**2)
    return float(full), without
