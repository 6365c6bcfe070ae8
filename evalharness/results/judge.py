"""A policy decided on what a run recorded; no model is needed, and nothing is written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from evalharness.gates import Decision, baseline_of, decide, doubts, find_anomalies, load_policy
from evalharness.metrics import REGISTRY, Estimates, Evidence
from evalharness.run.directory import Run
from evalharness.run.part import Recorded
from evalharness.spec.policy import Policy
from evalharness.spec.result import Anomaly


def judge(run: Recorded, policy: Policy) -> tuple[Estimates, Decision, list[Anomaly]]:
    """Decide ``policy`` on what ``run`` recorded; with the anomalies that were found."""
    estimates = Estimates(Evidence(run))
    return estimates, *decide_on(estimates, policy)


def decide_on(
    estimates: Estimates, policy: Policy, *, comparable: bool = False
) -> tuple[Decision, list[Anomaly]]:
    """Decide ``policy`` on these estimates; ``comparable``: take the baseline's data for theirs."""
    run = estimates.evidence.run
    found = [Anomaly(kind=k, message=m) for k, m in estimates.evidence.anomalies]
    compressed = claims_compression(run)
    found += find_anomalies(estimates, compressed)
    baseline = baseline_of(policy)
    hashes = None
    if baseline is not None:
        hashes = baseline.identity if comparable else identity(run)
    decision = decide(policy, estimates, anomalies=found, baseline=baseline, identity=hashes)
    warnings = [*decision.warnings, *doubts(estimates, compressed)]
    return replace(decision, warnings=warnings), found


def policy_of(run: Run) -> Policy:
    """The policy that a run was decided by: the original, or the run's copy where it is not whole.

    The copy needs no other file, so that a run can be judged wherever it is moved.
    """
    original = run.manifest.get("policy", "")
    sources = [Path(p) for p in run.manifest.get("policy_sources", [original])]
    whole = all(path.is_file() for path in sources)
    return load_policy(original if whole else run.path / "policy.yaml")


def claims_compression(run: Recorded) -> bool:
    """Whether the candidate is said, or measured, to hold fewer bits than the reference."""
    spec = run.manifest["candidate"]
    bits = {k: v["manifest"]["bits_per_weight"] for k, v in run.manifest["sides"].items()}
    claimed = (spec.get("manifest") or {}).get("bits")
    said = claimed is not None and claimed < (bits["reference"] or 32)
    known = None not in bits.values()
    smaller = known and bits["candidate"] < bits["reference"]
    return bool(spec.get("quantization") or spec.get("simulate") or said or smaller)


def identity(run: Recorded) -> dict[str, str]:
    """Hashes that another run must share for the two to be comparable, from what was recorded."""
    evidence, manifest = Evidence(run), run.manifest
    items = evidence.items
    prompts = sorted(
        {tuple(r) for r in items[["task", "doc_id", "prompt_hash", "target_hash"]].to_numpy()}
    )
    texts = evidence.documents.loc[:, ["doc", "corpus", "id", "tokens"]].dropna()
    scored = hashlib.sha256()
    for column in ("doc", "position", "token"):
        scored.update(evidence.column(column).tobytes())
    data = [
        manifest["token_stream"],
        # The same scored tokens under another window have another context.
        manifest["suite"].get("window"),
        [[str(x) for x in row] for row in texts.to_numpy()],
        scored.hexdigest(),
        [[str(x) for x in row] for row in prompts],
    ]
    return {
        "data": _digest(data),
        "tokenizer": _digest(sorted(set(manifest["tokenizers"]))),
        "metrics": _digest({m.id: [m.unit, m.direction, m.source] for m in REGISTRY.values()}),
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
