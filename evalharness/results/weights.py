"""Weights of a result: the error of every tensor, plain and weighted by the inputs it meets."""

from __future__ import annotations

from typing import Any

import numpy as np

from evalharness import stats
from evalharness.metrics import Evidence
from evalharness.metrics.numbers import CONFIDENCE, decibels, finite, relative
from evalharness.spec.module_results import WeightResult
from evalharness.stats import Interval


def weights(evidence: Evidence) -> list[WeightResult]:
    """One row a tensor, in the order of the model."""
    weighted = _weighted(evidence)
    results = []
    for row in evidence.frame("weights").to_dict("records"):
        reason = row["reason"] if isinstance(row["reason"], str) else None
        error = None if reason else relative(row["err_sq"], row["ref_sq"])
        if reason is None and error is None:
            reason = "a weight is NaN or infinite, or all are 0"
        found = weighted.get(row["layer"]) if row["kind"] == "linear" else None
        results.append(
            WeightResult(
                layer=row["layer"],
                tensor=row["tensor"],
                kind=row["kind"],
                storage_reference=row["storage_ref"],
                storage_candidate=row["storage_cand"],
                bits_reference=finite(row["bits_ref"]),
                bits_candidate=finite(row["bits_cand"]),
                error=error,
                sqnr_db=decibels(error),
                max_abs=None if reason else finite(row["max_abs"]),
                max_abs_at=None
                if reason
                else f"row {int(row['max_abs_row'])} column {int(row['max_abs_column'])}",
                weighted=found and found.value,
                weighted_low=found and found.low,
                weighted_high=found and found.high,
                reason=reason,
            )
        )
    return results


def _weighted(evidence: Evidence) -> dict[str, Interval]:
    """The error weighted by the reference's inputs, by module, with intervals over documents."""
    frame = evidence.frame("activations")
    frame = frame[(frame["side"] == "reference") & frame["weighted_ref_sq"].notna()]
    found = {}
    for layer, rows in frame.groupby("layer", sort=False):
        err, ref = rows["weighted_err_sq"].to_numpy(), rows["weighted_ref_sq"].to_numpy()
        if np.isfinite(err).all() and np.isfinite(ref).all() and ref.sum() > 0:
            found[str(layer)] = root_ratio(*evidence.by_cluster(rows["doc"].to_numpy(), err, ref))
    return found


def root_ratio(top: Any, bottom: Any) -> Interval:
    """√(Σ top / Σ bottom) of sums of squares a document, with its interval over documents.

    The estimator wants whole counts: both are scaled so that rounding is below 1e-12 of the sum.
    """
    scale = 1e12 / float(bottom.sum())
    counts = np.rint(bottom * scale)
    used = counts > 0
    return stats.rms_t(top[used] * scale, counts[used], CONFIDENCE)
