"""From a run's records and a policy to ``result.json``: estimates, verdicts, what a report shows.

Runs without torch. Everything here is a function of the run directory, so a run can be re-gated and
re-rendered without a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from evalharness import stats
from evalharness.gates import Decision
from evalharness.metrics import Estimates, Evidence, calibration
from evalharness.metrics.divergence import KL_MEAN
from evalharness.metrics.layers import EDGES, metric_of, told_apart, worst_channels
from evalharness.metrics.numbers import CONFIDENCE, decibels, finite, relative
from evalharness.metrics.routing import routing
from evalharness.metrics.weights import root_ratio, weights
from evalharness.results import activations as inputs
from evalharness.results.sensitivity import sensitivity
from evalharness.results.similarity import similarity
from evalharness.results.tasks import flipped, tasks
from evalharness.run.directory import InMemory, Run
from evalharness.spec.module_results import LayerResult, Matching
from evalharness.spec.plugins import offered, reject
from evalharness.spec.result import (
    NEXT_TOKEN,
    Anomaly,
    BothSides,
    Compared,
    CompressionManifest,
    Cost,
    DocumentShift,
    Figures,
    Histogram,
    ReliabilityBin,
    Repair,
    Result,
    WorstToken,
)
from evalharness.version import __version__

SHOWN_TOKENS = 8  # worst tokens shown by each criterion


def build(
    run: Run | InMemory, estimates: Estimates, decision: Decision, found: list[Anomaly]
) -> Result:
    """The whole result of ``run`` under a policy's ``decision``."""
    evidence = estimates.evidence
    manifest = run.manifest
    sides = {
        k: CompressionManifest.model_validate(v["manifest"]) for k, v in manifest["sides"].items()
    }
    return Result(
        evalharness_version=__version__,
        verdict=decision.verdict,
        headline=headline(run, decision),
        exit_code=decision.exit_code,
        reference=sides["reference"].name,
        candidate=sides["candidate"].name,
        suite=manifest["suite"]["name"],
        policy=decision.policy,
        created=manifest["created"],
        metrics=estimates.all(CONFIDENCE),
        gates=decision.gates,
        waivers=decision.waivers,
        layers=layers(evidence, estimates),
        matching=Matching(**manifest["matching"]) if manifest.get("matching") else None,
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
        figures=figures(evidence),
        compared=Compared(**sides, same_model=same_model(manifest)),
        cost=cost(manifest),
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
            "headline": headline(run, decision),
            "exit_code": decision.exit_code,
            "policy": decision.policy,
            "gates": decision.gates,
            "waivers": decision.waivers,
            "anomalies": found,
            "warnings": [*run.manifest.get("warnings", []), *decision.warnings],
        }
    )


def headline(run: Run | InMemory, decision: Decision) -> str:
    """The decision in a sentence, and a second one where both sides are one model."""
    if not same_model(run.manifest):
        return decision.headline
    return f"{decision.headline} Both sides hold the same weights: a model against itself."


def same_model(manifest: Mapping[str, Any]) -> bool:
    """Whether both sides hold the same weights, bit for bit."""
    a, b = manifest["sides"]["reference"], manifest["sides"]["candidate"]
    return bool(a["manifest"]["fingerprint"] == b["manifest"]["fingerprint"])


def layers(evidence: Evidence, estimates: Estimates) -> list[LayerResult]:
    """One row a module and kind of error, in the order of the model."""
    results = []
    worst = worst_channels(evidence)
    for (error, layer), rows in evidence.layers.items():
        estimate = estimates.estimate(metric_of(error), {"layer": layer}, CONFIDENCE)
        sums = {
            name: float(rows.column(name).astype(float).sum())
            for name in (
                "tokens",
                "err_sq",
                "ref_sq",
                "update_sq",
                "cos_sum",
                "pos0_err_sq",
                "pos0_ref_sq",
            )
        }
        tokens, pooled = sums["tokens"], relative(sums["err_sq"], sums["ref_sq"])
        largest = rows.largest()
        place = None
        if largest is not None:
            place = f"{evidence.document(largest[0])} position {largest[2]} channel {largest[3]}"
        # A low percentile of the cosine is a high one of 1 − cosine.
        away = stats.histogram_quantile(rows.histogram("cos").sum(0), EDGES, 0.99) if tokens else 0
        results.append(
            LayerResult(
                layer=layer,
                kind=cast(Any, rows.text("kind")),
                type=rows.text("type"),
                error=error,
                tokens=int(tokens),
                median=estimate.value,
                low=estimate.low,
                high=estimate.high,
                pooled=pooled,
                sqnr_db=decibels(pooled),
                cosine_mean=finite(sums["cos_sum"] / tokens) if tokens else None,
                cosine_p01=finite(1 - away) if tokens else None,
                max_abs=largest and largest[1],
                max_abs_at=place,
                position0=relative(sums["pos0_err_sq"], sums["pos0_ref_sq"]),
                update=relative(sums["err_sq"], sums["update_sq"]),
                **_update_ends(rows),
                **worst.get((error, layer), {}),
            )
        )
    return told_apart(results)


def _update_ends(rows: Any) -> dict[str, Any]:
    """The interval of the error relative to the block's update, over documents."""
    err, update = (rows.column(c).astype(float) for c in ("err_sq", "update_sq"))
    if not (np.isfinite(err).all() and np.isfinite(update).all() and update.sum() > 0):
        return {}
    found = root_ratio(err, update)
    return {"update_low": found.low, "update_high": found.high}


def worst_tokens(evidence: Evidence) -> list[WorstToken]:
    """The most extreme tokens by each criterion, in context."""
    frame = evidence.run.table("contexts").to_pandas()
    results = []
    for by in ("kl", "nll", "half_range", "max_abs"):
        for row in frame[frame["by"] == by].nlargest(SHOWN_TOKENS, "value").to_dict("records"):
            document = evidence.documents.iloc[int(row.pop("doc"))]
            row["value"] = float(row["value"])
            results.append(WorstToken(corpus=document["corpus"], document=document["id"], **row))
    return results


def figures(evidence: Evidence) -> Figures:
    """Histogram of KL, reliability bins of both sides, one point a document."""
    reliability: dict[str, dict[str, list[ReliabilityBin]]] = {}
    for scope in calibration.scopes(evidence):
        if scope and "task" not in scope:
            continue
        found = calibration.predictions(evidence, scope)
        if isinstance(found, str):
            continue
        reliability[scope.get("task", NEXT_TOKEN)] = {
            side: [
                ReliabilityBin(n=b.n, confidence=b.confidence, accuracy=b.accuracy)
                for b in stats.ece(*found.side(side)).bins
            ]
            for side in ("reference", "candidate")
        }
    if not evidence.has_tokens:
        return Figures(reliability=reliability)
    view = evidence.tokens({})
    kl = view.column("kl")
    kl = kl[np.isfinite(kl)]
    edges = np.logspace(-7, 2, 73)
    above = kl[kl > 0]
    counts, _ = np.histogram(above.clip(edges[0], edges[-1]), edges)
    # A position without a number leaves its own document without one, and no other.
    shift, n = view.sums(view.column("nll_cand") - view.column("nll_ref"))
    divergence, _ = view.sums(view.column("kl"))
    documents = [
        DocumentShift(
            document=row["id"],
            corpus=row["corpus"],
            tokens=int(n[i]),
            shift=finite(shift[i] / n[i]),
            kl=finite(divergence[i] / n[i]),
        )
        for i in np.flatnonzero(n)
        for row in [evidence.documents.iloc[int(i)]]
    ]
    return Figures(
        kl=Histogram(edges=edges.tolist(), counts=counts.tolist(), zeros=int((kl == 0).sum())),
        reliability=reliability,
        nll_by_document=documents,
    )


def cost(manifest: Mapping[str, Any]) -> Cost:
    """Bytes and seconds as measured."""
    sides, peaks = manifest["sides"], manifest.get("peak_bytes")
    held = {"weights": {side: v["manifest"]["weight_bytes"] for side, v in sides.items()}}
    if peaks:
        held["peak of one batch"] = peaks
    process = manifest.get("peak_memory")
    return Cost(
        seconds=manifest.get("seconds", {}),
        memory={"peak of the process": process} if process else {},
        memory_by_side={what: BothSides(**values) for what, values in held.items()},
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
