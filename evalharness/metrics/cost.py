"""What the compression bought: bits and bytes counted from the weights, seconds from the pass."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from evalharness import stats
from evalharness.metrics.evidence import Evidence, undefined
from evalharness.metrics.families import COST
from evalharness.metrics.registry import Measured, metric
from evalharness.spec.estimate import Scope
from evalharness.stats import Interval

_counted: Any = {
    "family": COST,
    "scopes": lambda evidence: [{}] if evidence.run.manifest.get("sides") else [],
    "scope_keys": (),
    "records": "manifest",
    "direction": "lower",
    "deterministic": True,
}


def _exact(value: float, confidence: float) -> Measured:
    return Measured(Interval(value, value, value, confidence, 1, 1, "counted"))


@metric(
    "weights.bits_per_weight",
    "Bits per weight, candidate",
    brief="Bits per weight",
    shown=("summary", "tile"),
    unit="bits",
    identity=None,
    source="stored bits, scales and zero points included, over parameters",
    **_counted,
)
def bits_per_weight(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    side = evidence.run.manifest["sides"]["candidate"]["manifest"]
    return _exact(float(side["bits_per_weight"]), confidence)


@metric(
    "memory.weights.ratio",
    "Weight memory, candidate ÷ reference",
    brief="Weight memory ratio",
    shown=("summary",),
    unit="ratio",
    identity=1.0,
    source="bytes of stored weights",
    **_counted,
)
def weights_ratio(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    sides = evidence.run.manifest["sides"]
    return _exact(
        sides["candidate"]["manifest"]["weight_bytes"]
        / sides["reference"]["manifest"]["weight_bytes"],
        confidence,
    )


@metric(
    "memory.peak.ratio",
    "Peak memory, candidate ÷ reference",
    unit="ratio",
    identity=None,
    source="weights and activations of one batch, CUDA only",
    **(_counted | {"scopes": lambda e: [{}] if e.run.manifest.get("peak_bytes") else []}),
)
def peak_ratio(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    peaks = evidence.run.manifest["peak_bytes"]
    return _exact(peaks["candidate"] / peaks["reference"], confidence)


def _timed(kind: str, evidence: Evidence) -> list[Scope]:
    timings = evidence.timings
    return [{}] if (timings["kind"] == kind).any() else []


def _ratio(kind: str, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    timings = evidence.timings
    rows = timings[timings["kind"] == kind]
    if evidence.run.manifest["sides"]["candidate"].get("simulated"):
        return Measured(
            undefined("a simulated candidate runs dequantised: its speed says nothing", confidence)
        )
    if not np.isfinite(rows[["seconds_ref", "seconds_cand"]].to_numpy(float)).all():
        return Measured(undefined("a batch has no finite time", confidence, len(rows)))
    # A batch is the cluster; the same batch ran on both sides, one after the other.
    cand, ref = (np.rint(1e9 * rows[f"seconds_{x}"].to_numpy(float)) for x in ("cand", "ref"))
    return Measured(replace(stats.cluster_skew_t(cand, ref, confidence), n=len(rows)))


_decode: Any = {"brief": "Decode latency ratio", "shown": ("summary", "candidates")}
for _kind, _more in (("prefill", {}), ("decode", _decode)):
    metric(
        f"latency.{_kind}.ratio",
        f"{_kind.capitalize()} latency, candidate ÷ reference",
        family=COST,
        unit="ratio",
        direction="lower",
        identity=None,
        source="seconds of the same batches",
        scopes=partial(_timed, _kind),
        scope_keys=(),
        records="timings",
        min_n=8,  # as many prompts as the probe decodes
        **_more,
    )(partial(_ratio, _kind))
