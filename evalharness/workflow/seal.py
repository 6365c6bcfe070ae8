"""From records to verdict and files, without a model: how `compare` ends and `gate` begins."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from evalharness.errors import InputError
from evalharness.gates import Decision, baseline_of, decide, find_anomalies, load_policy
from evalharness.metrics import REGISTRY, Estimates, Evidence
from evalharness.results.assemble import anomalies, build, decided_again
from evalharness.run.directory import InMemory, Run
from evalharness.spec.policy import Policy
from evalharness.spec.result import SCHEMA_VERSION, Anomaly, Result
from evalharness.version import __version__

FILES = ("result.json", "report.html", "summary.md", "junit.xml")


def judge(run: Run, policy: Policy) -> tuple[Estimates, Decision, list[Anomaly]]:
    """Decide ``policy`` on what ``run`` recorded; with the anomalies that were found."""
    estimates = Estimates(Evidence(run))
    found = anomalies(run, estimates.evidence)
    found += find_anomalies(estimates, compressed=claims_compression(run))
    baseline = baseline_of(policy)
    hashes = None if baseline is None else identity(run)
    decision = decide(policy, estimates, anomalies=found, baseline=baseline, identity=hashes)
    return estimates, decision, found


def finish(run: Run, policy: Policy) -> Result:
    """Judge, write result.json, report.html, summary.md and junit.xml, and seal the run."""
    estimates, decision, found = judge(run, policy)
    before = load_result(run.path) if (run.path / "result.json").is_file() else None
    if before is not None and before.evalharness_version == __version__:
        result = decided_again(run, before, decision, found)
    else:
        result = build(run, estimates, decision, found)
    pages = _rendered(result)
    # From here on the run is not whole until it is sealed, so nothing slow comes between.
    # The copy is for readers, and for when the original is gone; paths in it stay the original's.
    run.update(policy=str(policy.path.resolve()))
    run.write_text("policy.yaml", policy.path.read_text(encoding="utf-8"))
    run.write_text("result.json", result.model_dump_json(indent=1) + "\n")
    for name, text in pages.items():
        run.write_text(name, text)
    run.seal()
    return result


def render(run: Run, result: Result) -> None:
    """Write everything a person or a CI reads."""
    for name, text in _rendered(result).items():
        run.write_text(name, text)


def _rendered(result: Result) -> dict[str, str]:
    from evalharness.report import render_html, render_junit, render_markdown

    return {
        "report.html": render_html(result),
        "summary.md": render_markdown(result),
        "junit.xml": render_junit(result),
    }


def load_result(path: Path) -> Result:
    """Read ``result.json`` of a run directory."""
    file = path / "result.json"
    if not file.is_file():
        raise InputError(
            "the run has no result.json",
            path=path,
            remedy=f"It did not finish: add --resume {path} to the command that began it.",
        )
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not valid JSON ({error})", path=file) from None
    found = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(found, int) or found > SCHEMA_VERSION:
        raise InputError(
            f"must be at most {SCHEMA_VERSION}, which this evalharness reads (got {found})",
            path=file,
            key="schema_version",
            remedy="Upgrade evalharness.",
        )
    try:
        return Result.model_validate(data)
    except ValueError as error:
        raise InputError(f"not a result ({str(error).splitlines()[0]})", path=file) from None


def policy_of(run: Run) -> Policy:
    """The policy that a run was decided by: the original file, or the run's copy if it is gone."""
    original = Path(run.manifest.get("policy", ""))
    return load_policy(original if original.is_file() else run.path / "policy.yaml")


def claims_compression(run: Run) -> bool:
    """Whether the candidate is said, or measured, to hold fewer bits than the reference."""
    spec = run.manifest["candidate"]
    bits = {k: v["manifest"]["bits_per_weight"] for k, v in run.manifest["sides"].items()}
    claimed = (spec.get("manifest") or {}).get("bits")
    said = claimed is not None and claimed < bits["reference"]
    smaller = bits["candidate"] < bits["reference"]
    return bool(spec.get("quantization") or spec.get("simulate") or said or smaller)


def identity(run: Run | InMemory) -> dict[str, str]:
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
