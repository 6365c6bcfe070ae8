"""Weight error, counted over every weight: no sample, and so no interval but the value itself."""

from __future__ import annotations

from evalharness.metrics.evidence import Evidence, undefined
from evalharness.metrics.families import LAYER
from evalharness.metrics.numbers import relative
from evalharness.metrics.registry import Measured, metric
from evalharness.spec.estimate import Scope
from evalharness.stats import Interval


def _scopes(evidence: Evidence) -> list[Scope]:
    rows = evidence.frame("weights")
    named: list[Scope] = [{"layer": str(name)} for name in rows["layer"].unique()]
    if named:  # what has no counterpart is undefined, and passes no gate
        matching = evidence.run.manifest.get("matching") or {}
        lost = [*matching.get("unmatched_reference", []), *matching.get("unmatched_candidate", [])]
        known = {s["layer"] for s in named}
        named += [{"layer": n} for t in lost if (n := t.partition(" (")[0]) not in known]
    return named


@metric(
    "layer.weight_error",
    "Weight error",
    family=LAYER,
    unit="relative L2",
    direction="lower",
    identity=0.0,
    source="‖W̃ − W‖ / ‖W‖ over all weights of a module",
    scopes=_scopes,
    scope_keys=("layer",),
    records="weights",
    deterministic=True,
)
def weight_error(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    rows = evidence.frame("weights")
    rows = rows[rows["layer"] == scope["layer"]]
    if rows.empty:
        return Measured(undefined("the module has no counterpart on the other side", confidence))
    reasons = rows["reason"].dropna()
    if len(reasons):
        return Measured(undefined(str(reasons.iloc[0]), confidence))
    value = relative(*(float(rows[c].sum(skipna=False)) for c in ("err_sq", "ref_sq")))
    if value is None:
        return Measured(undefined("a weight is NaN or infinite, or all are 0", confidence))
    return Measured(Interval(value, value, value, confidence, len(rows), 1, "counted"))
