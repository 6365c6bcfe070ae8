"""Per-layer error: median over tokens of ‖Δh‖/‖h‖, position 0 apart (exllamav3's measure, unpooled)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from evalharness import stats
from evalharness.metrics.evidence import Evidence, undefined
from evalharness.metrics.registry import Measured, Scope, metric
from evalharness.records import BINS, BINS_PER_OCTAVE, EDGE_MIN

# Edge 0 opens bin 0, which holds exact zeros; then EDGE_MIN · 2^(i / BINS_PER_OCTAVE).
EDGES = np.concatenate([[0.0], EDGE_MIN * 2.0 ** (np.arange(BINS) / BINS_PER_OCTAVE)])


def histogram(rows: pd.DataFrame, name: str) -> npt.NDArray[np.int64]:
    """Dense counts (documents, BINS) from the sparse columns ``name_bins``, ``name_counts``."""
    counts = np.zeros((len(rows), BINS), np.int64)
    for i, (bins, values) in enumerate(
        zip(rows[f"{name}_bins"], rows[f"{name}_counts"], strict=True)
    ):
        counts[i, bins] = values
    return counts


def _scopes(error: str, evidence: Evidence) -> list[Scope]:
    return [{"layer": layer} for kind, layer in evidence.layers if kind == error]


def _median(error: str, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    rows = evidence.layers[(error, scope["layer"])]
    if not np.isfinite(rows["err_sq"]).all():
        return Measured(undefined("the module's output is NaN or infinite", confidence))
    if not rows["tokens"].sum():
        return Measured(undefined("no token reached this module", confidence))
    interval = stats.histogram_quantile_bootstrap(histogram(rows, "rel"), EDGES, 0.5, confidence)
    row = rows.iloc[int(rows["max_abs"].to_numpy().argmax())]
    document = evidence.documents.iloc[int(row["doc"])]
    worst = (
        f"layer {scope['layer']} (largest |Δ| {row['max_abs']:.4g} in {document['corpus']}/"
        f"{document['id']}, position {row['max_abs_position']}, channel {row['max_abs_channel']})"
    )
    return Measured(interval, worst)


for _error, _what in (
    ("total", "g(x̃) against f(x)"),
    ("own", "g(x̃) against f(x̃)"),
    ("inherited", "f(x̃) against f(x)"),
):
    _more: Any = {"identity": 0.0, "shift_invariant": False}
    metric(
        f"layer.error.{_error}", f"Layer error, {_error}", unit="relative L2", direction="lower",
        source=f"median over tokens of ‖Δh‖/‖h‖; {_what}", scopes=partial(_scopes, _error),
        scope_keys=("layer",), records="layers", **_more,
    )(partial(_median, _error))  # fmt: skip
