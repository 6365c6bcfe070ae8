"""From a run's records and a policy to ``result.json``: estimates, verdicts, what a report shows.

Runs without torch. Everything here is a function of the run directory, so a run can be re-gated and
re-rendered without a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalharness.gates import Decision
from evalharness.metrics import Estimates, Evidence
from evalharness.metrics.cost import sizes
from evalharness.metrics.divergence import KL_MEAN
from evalharness.metrics.numbers import CONFIDENCE
from evalharness.results import activations as inputs
from evalharness.results.chart_data import chart_data, worst_tokens
from evalharness.results.layers import layers
from evalharness.results.reach import near_lossless, unseen
from evalharness.results.routing import routing
from evalharness.results.sensitivity import sensitivity
from evalharness.results.similarity import similarity
from evalharness.results.speed import speed
from evalharness.results.tasks import flipped, tasks
from evalharness.results.weights import weights
from evalharness.run.directory import Run
from evalharness.run.part import Recorded
from evalharness.spec.module_results import Matching
from evalharness.spec.plugins import offered, reject
from evalharness.spec.result import (
    Anomaly,
    BothSides,
    Compared,
    CompressionManifest,
    Cost,
    Repair,
    Result,
)
from evalharness.version import __version__


def build(run: Recorded, estimates: Estimates, decision: Decision, found: list[Anomaly]) -> Result:
    """The whole result of ``run`` under a policy's ``decision``."""
    evidence = estimates.evidence
    manifest = run.manifest
    sides = {k: CompressionManifest.model_validate(v) for k, v in sizes(manifest).items()}
    same = same_model(manifest, estimates)
    metrics = estimates.all(CONFIDENCE)
    return Result(
        evalharness_version=__version__,
        verdict=decision.verdict,
        headline=headline(decision, same),
        exit_code=decision.exit_code,
        reference=sides["reference"].name,
        candidate=sides["candidate"].name,
        suite=manifest["suite"]["name"],
        policy=decision.policy,
        created=manifest["created"],
        metrics=metrics,
        gates=decision.gates,
        waivers=decision.waivers,
        unseen=unseen(decision.gates, metrics),
        near_lossless=near_lossless(decision.gates, metrics),
        layers=layers(evidence, estimates),
        matching=Matching(**matched) if (matched := manifest.get("matching")) else None,
        weights=weights(evidence),
        activations=inputs.activations(evidence),
        calibration=inputs.calibration(evidence),
        routing=routing(evidence),
        similarity=similarity(evidence),
        sensitivity=sensitivity(evidence),
        repair=Repair(**manifest["repair"]) if manifest.get("repair") else None,
        tasks=tasks(evidence),
        flipped=flipped(evidence),
        worst_tokens=worst_tokens(evidence),
        figures=chart_data(evidence),
        compared=Compared(**sides, same_model=same),
        cost=cost(manifest, evidence),
        environment=_environment(manifest),
        anomalies=found,
        warnings=[*manifest.get("warnings", []), *decision.warnings],
        command=manifest.get("command", ""),
        extra=extra(evidence),
    )


def decided_again(run: Run, before: Result, decision: Decision, found: list[Anomaly]) -> Result:
    """``before`` under another decision: what was measured stays as it is."""
    return before.model_copy(
        update={
            "verdict": decision.verdict,
            "headline": headline(decision, before.compared.same_model),
            "exit_code": decision.exit_code,
            "policy": decision.policy,
            "gates": decision.gates,
            "waivers": decision.waivers,
            "unseen": unseen(decision.gates, before.metrics),
            "near_lossless": near_lossless(decision.gates, before.metrics),
            "anomalies": found,
            "warnings": [*run.manifest.get("warnings", []), *decision.warnings],
        }
    )


def headline(decision: Decision, same: bool) -> str:
    """The decision in a sentence, and a second one where both sides are one model."""
    if not same:
        return decision.headline
    return f"{decision.headline} Both sides hold the same weights: a model against itself."


def same_model(manifest: Mapping[str, Any], estimates: Estimates) -> bool:
    """Whether both sides are one model: weights, configuration, tokenizer and what came out."""
    a, b = (manifest["sides"][side]["manifest"] for side in ("reference", "candidate"))
    kinds = ("fingerprint", "configuration_fingerprint", "tokenizer_fingerprint")
    if any(a.get(kind) != b.get(kind) for kind in kinds):
        return False
    scopes = estimates.scopes(KL_MEAN.id)
    return all(estimates.estimate(KL_MEAN.id, s, CONFIDENCE).value in (0.0, None) for s in scopes)


def cost(manifest: Mapping[str, Any], evidence: Evidence) -> Cost:
    """Bytes and seconds as measured."""
    peaks = manifest.get("peak_bytes")
    resident = {k: v["manifest"].get("resident_bytes") for k, v in manifest["sides"].items()}
    ships = {side: v["weight_bytes"] for side, v in sizes(manifest).items()}
    named = {"weights as shipped": ships, "weights in memory here": resident}
    held = {what: both for what, both in named.items() if None not in both.values()}
    if peaks:
        held["peak of one batch"] = peaks
    process = manifest.get("peak_memory")
    return Cost(
        seconds=manifest.get("seconds", {}),
        memory={"peak of the process": process} if process else {},
        memory_by_side={what: BothSides(**values) for what, values in held.items()},
        speed_by_side=speed(evidence),
        reason=None if peaks else "the peak of each side takes CUDA and `probes: [latency]`",
    )


def _environment(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Versions and hardware, and what the noise floor was measured by."""
    found = {k: str(v) for k, v in manifest.get("environment", {}).items()}
    if ways := manifest.get("noise_floor_ways"):
        kl = {way: values.get(KL_MEAN.id) for way, values in ways.items()}
        found["noise floor"] = "; ".join(
            way if value is None else f"{way}: mean KL {value:.2g}" for way, value in kl.items()
        )
    return found


def extra(evidence: Evidence) -> dict[str, Any]:
    """What other packages' probes, where the suite named them, say of their records."""
    named = evidence.run.manifest["suite"].get("probes", ())
    found = {}
    for name, probe in offered("probes", object):
        summary = getattr(probe, "summary", None)
        if name in named and summary is not None:
            try:
                found[name] = summary(evidence)
            except Exception as error:  # whatever the package raises
                reject("probes", name, f"its summary raised {type(error).__name__}: {error}")
    return found
