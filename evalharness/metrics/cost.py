"""What the compression bought: bits and bytes counted from the weights, seconds from the pass.

Bytes are those that ship, and those that are resident here; a GGUF file is small on the one count
and dense on the other.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from evalharness.spec.result import EMULATED
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


def sizes(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The manifests of both sides, with what they ship counted alike.

    A candidate that is made on loading, by `simulate` or `quantization`, has no files yet. It is
    made of the reference's loaded tensors, and both are then counted as tensors: the reference may
    have been unpacked from a file that is smaller than either.
    """
    sides = {k: dict(v["manifest"]) for k, v in manifest["sides"].items()}
    if all(side.get("ships") == "files" for side in sides.values()):
        return sides
    for side in sides.values():
        if side.get("ships") == "files":
            side |= {
                "bits_per_weight": side["counted_bits_per_weight"],
                "weight_bytes": side["counted_bytes"],
                "ships": "tensors",
            }
    return sides


def _counted_of(
    sides: Mapping[str, Mapping[str, Any]], key: str, confidence: float, *, ratio: bool
) -> Measured:
    """``key`` of the candidate, over the reference's where it is a ratio."""
    for name in ("candidate", "reference") if ratio else ("candidate",):
        if not isinstance(sides[name].get(key), int | float):
            why = sides[name].get("not_measured") or f"{key} of the {name} was not recorded"
            return Measured(undefined(why, confidence))
    value = sides["candidate"][key]
    if not ratio:
        return _exact(float(value), confidence)
    if not sides["reference"][key]:
        return Measured(undefined("the reference has no weights", confidence))
    return _exact(value / sides["reference"][key], confidence)


@metric(
    "weights.bits_per_weight",
    "Bits per weight, candidate as shipped",
    brief="Bits per weight",
    shown=("summary", "tile"),
    unit="bits",
    identity=None,
    source="bits of the tensors in the files, scales and zero points included, over parameters; "
    "made on loading: bits of the tensors that would be saved",
    **_counted,
)
def bits_per_weight(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    found = sizes(evidence.run.manifest)
    return _counted_of(found, "bits_per_weight", confidence, ratio=False)


@metric(
    "memory.weights.ratio",
    "Weights as shipped, candidate ÷ reference",
    brief="Weight size ratio",
    shown=("summary",),
    unit="ratio",
    identity=1.0,
    source="bytes of the tensors in the files; made on loading: of both sides' tensors",
    **_counted,
)
def weights_ratio(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    found = sizes(evidence.run.manifest)
    return _counted_of(found, "weight_bytes", confidence, ratio=True)


def _sides(evidence: Evidence) -> dict[str, Any]:
    found = evidence.run.manifest.get("sides") or {}
    return {k: v["manifest"] for k, v in found.items()}


def _recorded(key: str) -> dict[str, Any]:
    """Only where the run recorded it: those of earlier versions have no ``key``."""
    return {"scopes": lambda e: [{}] if key in _sides(e).get("candidate", {}) else []}


@metric(
    "memory.resident.ratio",
    "Weights in memory here, candidate ÷ reference",
    unit="ratio",
    identity=1.0,
    source="bytes of the weights once both have run in this engine, unpacked ones as they are then",
    **(_counted | _recorded("resident_bytes")),
)
def resident_ratio(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    return _counted_of(_sides(evidence), "resident_bytes", confidence, ratio=True)


@metric(
    "weights.compressed_share",
    "Linear and expert weights that are compressed, candidate",
    unit="fraction",
    identity=None,
    source="parameters of quantised linear modules and experts over those of all, the head apart",
    **(_counted | _recorded("compressed_share") | {"direction": "higher"}),
)
def compressed(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    return _counted_of(_sides(evidence), "compressed_share", confidence, ratio=False)


def _share(key: str, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    return _counted_of(_sides(evidence), key, confidence, ratio=False)


for _key, _what, _source in (
    ("sparsity", "that are exact zeros", "exact zeros, those of a quantised grid among them"),
    ("two_of_four", "in a 2:4 pattern", "weights in runs of four inputs of which two are zero"),
):
    metric(
        f"weights.{_key}",
        f"Linear and expert weights {_what}, candidate",
        unit="fraction",
        identity=None,
        source=f"{_source}, over the parameters of linear modules and experts, the head apart",
        **(_counted | _recorded(_key) | {"direction": "higher"}),
    )(partial(_share, _key))


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
    if (kernel := emulated(evidence)) is not None:
        return Measured(undefined(f"not the deployed kernel: weights are {kernel}", confidence))
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


def emulated(evidence: Evidence) -> str | None:
    """How the candidate is computed where that is not by the kernel that would be deployed."""
    kernel: str | None = _sides(evidence)["candidate"].get("kernel")
    return kernel if kernel in EMULATED else None


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
