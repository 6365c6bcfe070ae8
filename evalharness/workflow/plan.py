"""A comparison's inputs, read and checked: no weights are loaded and nothing is written."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalharness.data.calibration import calibration_texts
from evalharness.data.documents import Text, read_texts
from evalharness.engines.locate import resolve_spec
from evalharness.errors import InputError
from evalharness.gates import (
    Sizes,
    baseline_of,
    check_resolvable,
    load_policy,
    spreads_from,
)
from evalharness.metrics import Estimates, Evidence, Spread
from evalharness.probes.registry import check_probes
from evalharness.run import assets
from evalharness.run.directory import Run, check_new
from evalharness.spec.model import ModelSpec, load_model_spec
from evalharness.spec.slices import MOST, SlicedDocument, subsets
from evalharness.spec.suite import Suite, load_suite
from evalharness.spec.yamlfile import load_yaml
from evalharness.workflow.stopping import stopping, unwatched

if TYPE_CHECKING:
    from evalharness.data.items import PreparedTasks
    from evalharness.spec.policy import Policy
    from evalharness.workflow.memory_plan import MemoryPlan

BLOCK_TOKENS = 8192  # about a minute's work on two cores: what a killed run loses at most


@dataclass(frozen=True)
class Job:
    """Validated inputs, with every default explicit."""

    reference: ModelSpec
    candidate: ModelSpec
    suite: Suite
    policy: Policy
    texts: list[Text]
    tasks: PreparedTasks | None
    out: Path
    device: str | None = None
    resume: bool = False
    stopping: dict[str, Any] | None = None  # the rule by which it may stop early
    command: str = ""
    warnings: list[str] = field(default_factory=list)
    block_tokens: int = BLOCK_TOKENS
    cache: bool = False  # keep the reference's hidden states for other candidates
    folder: Path | None = None  # of the runs of several candidates, this one among them
    memory: MemoryPlan | None = None  # made already, where several jobs share a reference
    spreads: Mapping[str, Spread] | None = None  # of an earlier run, for planning
    calibration: list[Text] = field(default_factory=list)  # what the candidate was calibrated on


def plan_job(
    base: str | Path,
    candidate: str | Path,
    *,
    suite: str | Path = "quick",
    gates: str | Path = "default",
    out: str | Path | None = None,
    resume: str | Path | None = None,
    device: str | None = None,
    limit: int | None = None,
    stop_early: bool = False,
    looks: int | None = None,
    cache: bool = False,
    plan_from: str | Path | None = None,
    command: str = "",
) -> Job:
    """Read and check everything that can be checked without loading weights.

    ``plan_from``: an earlier run, whose spreads say what a limit takes instead of the defaults.
    """
    rule = stopping(stop_early, looks)
    reference, other = load_model_spec(base), load_model_spec(candidate)
    suite_file = assets.find("suites", suite)
    chosen = _limited(load_suite(suite_file), limit)
    policy = load_policy(assets.find("gates", gates))
    for spec in (reference, other):
        resolve_spec(spec)
    if resume is not None:
        path = Path(resume)
        if Run.open(path).manifest.get("files"):
            raise InputError(
                "this run is complete: there is nothing to resume",
                path=path,
                key="--resume",
                remedy="`evalharness gate RUN` decides it again; `report RUN` renders it again.",
            )
    else:
        path = Path(out) if out is not None else default_out(reference.name, other.name)
        check_new(path)
    texts, notes = read_texts(chosen)
    tasks = None
    if chosen.tasks:
        from evalharness.data.items import prepare_tasks

        tasks = prepare_tasks(chosen.tasks, seed=chosen.seed)
        notes += tasks.messages
    check_probes(chosen, load_yaml(suite_file))
    notes += check_slices(chosen, texts, suite_file, limited=limit is not None)
    baseline_of(policy)  # refused now, where it is missing or of a newer version
    spreads = _spreads(policy, plan_from)
    check_resolvable(policy, sizes(chosen, texts, tasks), spreads)
    if stop_early:
        notes += unwatched(policy)
    return Job(
        reference,
        other,
        chosen,
        policy,
        texts,
        tasks,
        path,
        device,
        resume is not None,
        rule,
        command,
        notes,
        BLOCK_TOKENS // (4 if rule else 1),
        cache,
        spreads=spreads,
        calibration=calibration_texts(other, chosen),
    )


def _spreads(policy: Policy, run: str | Path | None) -> dict[str, Spread] | None:
    if run is None:
        return None
    opened = Run.open(Path(run))
    opened.verify()
    return spreads_from(policy, Estimates(Evidence(opened)), str(run))


def sizes(suite: Suite, texts: list[Text], tasks: PreparedTasks | None) -> Sizes:
    """How many documents and items there will be to decide on."""
    items = {t.name: t.items for t in tasks.tasks} if tasks is not None else {}
    docs = [SlicedDocument(t.corpus, t.id, t.attributes) for t in texts]
    named = subsets(suite.model_dump()["slices"], docs)
    slices = {s.name: None if "length" in s.where else sum(s.takes(d) for d in docs) for s in named}
    return Sizes(documents=Counter(t.corpus for t in texts), items=items, slices=slices)


def check_slices(suite: Suite, texts: list[Text], path: Path, limited: bool) -> list[str]:
    """Raise `InputError` for a slice that no document is in, or that falls apart into too many.

    Where ``--limit`` may be what left a slice empty, it is a warning, which is returned.
    """
    notes: list[str] = []
    known: dict[str, set[str]] = {}
    for text in texts:
        for key, value in text.attributes.items():
            known.setdefault(key, set()).add(value)
    has = "; ".join(f"{k}: {', '.join(sorted(v)[:5])}" for k, v in sorted(known.items()))
    remedy = (
        f"The documents' attributes are {has}."
        if has
        else "The documents have no attributes: `attributes:` or `labels:` of a corpus gives some."
    )
    counts, file = sizes(suite, texts, None).slices, load_yaml(path)
    for number, entry in enumerate(suite.slices):
        if entry.by is not None and entry.by != "corpus":
            values = known.get(entry.by, set())
            if not values and limited:
                notes.append(f"no document has the attribute {entry.by!r} under --limit")
            elif not values or len(values) > MOST:
                many = f"{len(values)} values of {entry.by!r}, and each would be a slice"
                fewer = f"At most {MOST} are taken; group them with name and where."
                none = f"no document has the attribute {entry.by!r}"
                raise file.error(
                    many if values else none,
                    ("slices", number, "by"),
                    fewer if values else remedy,
                )
        elif entry.name is not None and counts[entry.name] == 0:
            empty = f"no document is in the slice {entry.name!r}"
            if not limited:
                raise file.error(empty, ("slices", number, "where"), remedy)
            notes.append(f"{empty} under --limit")
    return notes


def _limited(suite: Suite, limit: int | None) -> Suite:
    """``--limit N``: at most N documents a corpus and N items a task."""
    if limit is None:
        return suite
    if limit < 1:
        raise InputError(
            f"must be at least 1 (got {limit})",
            key="--limit",
            remedy="Leave it out to measure everything the suite names.",
        )
    least = {"corpora": "documents", "tasks": "limit"}
    changes = {
        kind: tuple(
            part.model_copy(update={key: min(limit, getattr(part, key) or limit)})
            for part in getattr(suite, kind)
        )
        for kind, key in least.items()
    }
    return suite.model_copy(update=changes)


def default_out(reference: str, candidate: str) -> Path:
    """``runs/REFERENCE--CANDIDATE-TIME``."""
    now = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{tidy(reference)}--{tidy(candidate)}-{now}"


def tidy(name: str) -> str:
    """``name`` as a directory may be called."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
