"""What the compression bought: bits and bytes counted from the weights, seconds from the pass."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

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


_ONE_PROCESS = (
    "within this run, in one process, whose luck both sides share: what another run would give is "
    "not known. `latency: {processes: 3}` in the suite, and latency among its probes, measure it "
    "in fresh ones"
)


def _timed(kind: str, evidence: Evidence) -> list[Scope]:
    failed = _not_measured(evidence) is not None
    return [{}] if failed or (evidence.timings["kind"] == kind).any() else []


def _not_measured(evidence: Evidence) -> str | None:
    return evidence.run.manifest.get("not_measured", {}).get("latency")


def _ratio(kind: str, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    rows = _rows(kind, evidence)
    if evidence.run.manifest["sides"]["candidate"].get("simulated"):
        return Measured(
            undefined("a simulated candidate runs dequantised: its speed says nothing", confidence)
        )
    if (why := _not_measured(evidence)) is not None:
        return Measured(undefined(f"not measured: {why}", confidence))
    seconds = rows[["seconds_ref", "seconds_cand"]]
    if not np.isfinite(seconds.to_numpy(float)).all():
        return Measured(undefined("a batch has no finite time", confidence, len(rows)))
    # A process is the cluster: the batches of one share whatever was particular to it. The sums of
    # rows are exact (in nanoseconds), so that their order is of no matter.
    totals = (1e9 * seconds).round().groupby(rows["process"]).sum()
    if (totals <= 0).to_numpy().any():
        return Measured(undefined("it took no time by the clock", confidence, len(rows)))
    found = stats.process_ratio_t(totals["seconds_cand"], totals["seconds_ref"], confidence)
    reason = _ONE_PROCESS if found.clusters == 1 else found.reason
    return Measured(replace(found, n=len(rows), reason=reason))


def _rows(kind: str, evidence: Evidence) -> pd.DataFrame:
    """The timings of one kind; those of the pass itself are one process, where there are others."""
    rows = evidence.timings[evidence.timings["kind"] == kind]
    apart = rows[rows["process"].notna()]
    return apart if len(apart) else rows.assign(process=0)


_decode: Any = {"brief": "Decode latency ratio", "shown": ("summary", "candidates")}
for _kind, _more in (("prefill", {}), ("decode", _decode)):
    metric(
        f"latency.{_kind}.ratio",
        f"{_kind.capitalize()} latency, candidate ÷ reference",
        family=COST,
        unit="ratio",
        direction="lower",
        identity=None,
        source="seconds of the same batches, alternately on both sides; geometric mean over fresh "
        "processes",
        scopes=partial(_timed, _kind),
        scope_keys=(),
        records="timings",
        min_n=stats.LEAST_PROCESSES,
        of_processes=True,
        **_more,
    )(partial(_ratio, _kind))
