"""A run's beginning: what is compared, by its hashes, and the manifest that says so."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

from evalharness.data import repeats
from evalharness.data.documents import bos_token
from evalharness.data.windows import own_bos
from evalharness.errors import RunError, plural
from evalharness.pair.side import Side
from evalharness.pair.texts.statistics import can_compile, worth_compiling
from evalharness.pair.watcher import Watcher
from evalharness.run.directory import Run
from evalharness.run.environment import environment
from evalharness.run.manifest import RecordedSide, RecordedSlice
from evalharness.spec.slices import SlicedDocument, subsets
from evalharness.version import __version__
from evalharness.workflow.inputs import decisive, model_files
from evalharness.workflow.noise_floor import Floor
from evalharness.workflow.plan import Job
from evalharness.workflow.reference import Reference

TUNED = 5  # a confidence sequence is narrowest at this part of the documents


def begin(
    job: Job,
    reference: Reference,
    candidate: Side,
    *,
    watcher: Watcher | None,
    floor: Floor,
    noted: list[str],
    anomalies: list[str],
) -> Run:
    """Create the run, or take up the one that is there.

    ``noted`` are warnings, and ``anomalies`` what is wrong with the candidate beside the reference.

    Raises
    ------
    InputError : what is there was made from other inputs.
    RunError : it was begun in a way that this machine cannot continue.

    """
    sides = _sides(job, reference.side, candidate)
    sides["candidate"]["anomalies"] += anomalies
    inputs = decisive(job, reference, candidate)
    identity = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    loaded = (reference.side.loaded, candidate.loaded)
    if job.resume:
        run = Run.resume(job.out, inputs)
        if run.manifest.get("compiled_statistics") and not can_compile():
            run.close()
            raise RunError(
                f"{job.out} was begun with compiled token statistics, and torch.compile does not "
                "work here: the rest would differ in the last bits. Resume it where a C++ compiler "
                "is installed, or compare again with another --out"
            )
    else:
        run = Run.create(
            job.out,
            {
                **inputs,
                "identity": identity,
                "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "evalharness": __version__,
                "command": str(job.command),
                "resume": str(job.resume_command),
                "sides": sides,
                "model_files": model_files(job),
                "slices": _slices(job, reference),
                "same_text": repeats.same_text(reference.documents),
                "shared_items": [] if job.tasks is None else sorted(job.tasks.sharing),
                "noise_floor": floor.values,
                "noise_floor_ways": floor.ways,
                "noise_floor_missing": floor.missing,
                "matching": watcher.matching.model_dump() if watcher else None,
                "blocks": len(reference.blocks),
                "stop_early": _stopping(job, reference),
                "compiled_statistics": _compiled(reference, candidate),
                "environment": environment(reference.side.device, candidate.device),
                "warnings": [
                    *job.warnings,
                    *noted,
                    *floor.notes,
                    *(watcher.matching.notes if watcher else []),
                    *_left_out(job, reference),
                    *repeats.said(reference.documents),
                    *own_bos(reference.documents, bos_token(reference.side.loaded.tokenizer)),
                    *(f"{side.name}: {text}" for side in loaded for text in side.messages),
                ],
            },
        )
    for side in loaded:
        for message in side.messages:
            run.log("loader", message, model=side.name)
    return run


def _sides(job: Job, reference: Side, candidate: Side) -> dict[str, RecordedSide]:
    named = (("reference", reference, job.reference), ("candidate", candidate, job.candidate))
    return {
        name: {
            "manifest": side.loaded.manifest.model_dump(),
            "simulated": spec.simulate is not None,
            "split": side.split,
            "anomalies": list(side.loaded.anomalies),
            **({"apart": spec.model.engine} if side.streams else {}),
            **({"top_logprobs": side.top_logprobs} if side.top_logprobs else {}),
        }
        for name, side, spec in named
    }


def _slices(job: Job, reference: Reference) -> list[RecordedSlice]:
    docs = [
        SlicedDocument(d.corpus, d.id, d.attributes, len(d.tokens)) for d in reference.documents
    ]
    found = subsets(job.suite.model_dump()["slices"], docs)
    return [{"name": s.name, "where": dict(s.where)} for s in found]


def _stopping(job: Job, reference: Reference) -> dict[str, Any] | None:
    rule = job.stopping
    if rule is None or rule["rule"] != "sequence":
        return rule
    # The sequence is narrowest here; fixed before the first document is seen.
    return {**rule, "tuned_for": max(30, len(reference.documents) // TUNED)}


def _compiled(reference: Reference, candidate: Side) -> bool:
    """Whether token statistics are compiled: a machine that cannot has other last bits."""
    positions = sum(window.scored for window in reference.windows)
    wanted = worth_compiling(positions, candidate.vocab_size, candidate.device)
    return wanted and can_compile()


def _left_out(job: Job, reference: Reference) -> list[str]:
    short = len(job.texts) - len(reference.documents)
    return [f"too short to score and left out: {plural(short, 'document')}"] if short else []
