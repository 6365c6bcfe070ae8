"""What decides the records of a comparison, as the manifest keeps it: a run is of these alone.

A run is resumed only where all of it is as it was; `run.differences` names what is not.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalharness.engines.registry import find_model
from evalharness.run.environment import environment
from evalharness.run.manifest import Manifest
from evalharness.spec.model import ModelSpec
from evalharness.spec.policy import Policy

if TYPE_CHECKING:
    import torch

    from evalharness.pair.side import Side
    from evalharness.workflow.plan import Job
    from evalharness.workflow.reference import Reference

# Packages that compute, or that say what is computed; statistics are made anew from the records.
_DECIDING = ("lm_eval", "tokenizers", "peft", "bitsandbytes", "torchao", "compressed-tensors")
_NOT_DECIDING = ("python", "platform", "numpy", "scipy")


def planned(job: Job) -> Manifest:
    """What is known before a model is loaded."""
    found: Manifest = {
        "reference": job.reference.model_dump(mode="json", by_alias=True),
        "candidate": job.candidate.model_dump(mode="json", by_alias=True),
        "suite": job.suite.model_dump(mode="json"),
        "texts": _digest(
            [
                [t.corpus, t.id, t.attributes, t.text, None if t.tokens is None else list(t.tokens)]
                for t in (*job.texts, *job.calibration)
            ]
        ),
        "task_data": {} if job.tasks is None else {t.name: t.identity for t in job.tasks.tasks},
        "task_prompts": {} if job.tasks is None else {t.name: t.asked for t in job.tasks.tasks},
        "stopping": job.stopping,
        # Where it ends the pass early, the policy decides which documents are measured.
        "stopping_policy": _policy(job.policy) if job.stopping else None,
    }
    return _plain(found)


def decisive(job: Job, reference: Reference, candidate: Side) -> Manifest:
    """All that decides a record's bits."""
    from evalharness.data import documents

    sides = {"reference": reference.side, "candidate": candidate}
    loaded = [side.loaded for side in sides.values()]
    windows = [
        [w.document, w.start, w.first, w.last, w.probed, w.ids.tolist()] for w in reference.windows
    ]
    found: Manifest = {
        **planned(job),
        "token_stream": documents.fingerprint(reference.documents),
        "windows": _digest(windows),
        "block_tokens": reference.block_tokens,
        "weights": [one.manifest.fingerprint for one in loaded],
        "tokenizers": [one.manifest.tokenizer_fingerprint for one in loaded],
        "templates": [_digest(getattr(o.tokenizer, "chat_template", None)) for o in loaded],
        "settings": {name: _settings(side.model) for name, side in sides.items()},
        "versions": versions(*(side.device for side in sides.values())),
    }
    return _plain(found)


def versions(*devices: torch.device) -> dict[str, str]:
    """What computes: packages, hardware and threads."""
    found = {k: v for k, v in environment(*devices).items() if k not in _NOT_DECIDING}
    for package in _DECIDING:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def model_files(job: Job) -> dict[str, dict[str, list[int]]]:
    """Size and time of change of each side's files, where they lie on this machine."""
    return {
        name: {
            file.name: [(status := file.stat()).st_size, status.st_mtime_ns]
            for file in _files(spec)
        }
        for name, spec in (("reference", job.reference), ("candidate", job.candidate))
    }


def _files(spec: ModelSpec) -> list[Path]:
    found = [find_model(spec).path]
    for text in (spec.adapter, spec.model.tokenizer):
        if text is not None and Path(text).exists():
            found.append(Path(text))
    return [
        file
        for path in found
        if path is not None
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        if file.is_file()
    ]


def _settings(model: Any) -> dict[str, Any]:
    from evalharness.compat.transformers import generation_settings, settings_of

    return {
        **settings_of(model),
        "class": type(model).__name__,
        "generation": generation_settings(model),
    }


def _policy(policy: Policy) -> str:
    gates = [
        {k: str(v) for k, v in vars(gate).items() if k not in ("place", "places")}
        for gate in policy.gates
    ]
    baseline = policy.baseline
    data = None if baseline is None else hashlib.sha256(baseline.read_bytes()).hexdigest()
    return _digest([policy.confidence, gates, data])


def _plain(found: Manifest) -> Manifest:
    plain: Manifest = json.loads(json.dumps(found, default=str))
    return plain


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
