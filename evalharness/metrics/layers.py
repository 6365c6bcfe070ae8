"""Per-layer error: median over tokens of ‖Δh‖/‖h‖, without position 0 (exllamav3's, unpooled)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from evalharness import stats
from evalharness.metrics.evidence import Evidence, undefined
from evalharness.metrics.families import LAYER
from evalharness.metrics.registry import Measured, metric
from evalharness.run.records import BINS, BINS_PER_OCTAVE, EDGE_MIN
from evalharness.spec.estimate import Scope

# Edge 0 opens bin 0, which holds exact zeros; then EDGE_MIN · 2^(i / BINS_PER_OCTAVE).
EDGES = np.concatenate([[0.0], EDGE_MIN * 2.0 ** (np.arange(BINS) / BINS_PER_OCTAVE)])


def _scopes(error: str, evidence: Evidence) -> list[Scope]:
    found = [layer for kind, layer in evidence.layers if kind == error]
    if found:  # what has no counterpart is undefined, and passes no gate
        found += [name for name in evidence.unmatched if name not in found]
    # Documents, not positions: records are sums over all of a document's tokens.
    slices = [name for name, chosen in evidence.slices.items() if chosen.positions is None]
    return [{"layer": layer} for layer in found] + [
        {"layer": layer, "slice": name} for name in slices for layer in found
    ]


def _median(error: str, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    rows = evidence.layers.get((error, scope["layer"]))
    chosen = evidence.in_scope(scope)
    if rows is not None and chosen is not None:
        rows = rows.of(chosen)
        if not len(rows.rows):
            return Measured(undefined("no probed window is of this slice", confidence))
    if rows is None:
        why = "the module has no counterpart on the other side, or no token reached it"
        return Measured(undefined(why, confidence))
    if not np.isfinite(rows.column("err_sq")).all():
        return Measured(undefined("the module's output is NaN or infinite", confidence))
    if not rows.column("tokens").sum():
        return Measured(undefined("no token reached this module", confidence))
    (histogram,) = evidence.by_cluster(rows.column("doc"), rows.histogram("rel"))
    interval = stats.histogram_quantile_bootstrap(histogram, EDGES, 0.5, confidence)
    worst = f"layer {scope['layer']}"
    largest = rows.largest()
    if largest is not None:
        doc, value, position, channel = largest
        worst += (
            f" (largest |Δ| {value:.4g} in {evidence.document(doc)}, position {position}, channel "
            f"{channel})"
        )
    return Measured(interval, worst)


def metric_of(error: str) -> str:
    """Return the id of the metric of one kind of error, as a record names it."""
    return f"layer.error.{error}"


def error_of(metric_id: str) -> str:
    """Return the kind of error that a metric of layer records is of."""
    return metric_id.removeprefix(metric_of(""))


for _error, _name, _what in (
    ("total", "total", "g(x̃) against f(x)"),
    ("own", "its own", "g(x̃) against f(x̃)"),
    ("inherited", "inherited", "f(x̃) against f(x)"),
    ("own_on_clean", "its own on clean input", "g(x) against f(x)"),
):
    _more: Any = {"identity": 0.0, "shift_invariant": False, "family": LAYER}
    _more["min_n"] = 10  # a median has no tail to miss, and few windows are probed
    metric(
        metric_of(_error),
        f"Layer error, {_name}",
        unit="relative L2",
        direction="lower",
        source=f"median over tokens of ‖Δh‖/‖h‖; {_what}",
        scopes=partial(_scopes, _error),
        scope_keys=("layer", "slice"),
        records="layers",
        **_more,
    )(partial(_median, _error))
