"""A comparison's inputs, read and checked: no weights are loaded and nothing is written."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from evalharness.compat import lm_eval
from evalharness.data.calibration import calibration_texts
from evalharness.data.documents import Text, read_texts
from evalharness.engines.registry import find_model, runs_apart
from evalharness.errors import InputError
from evalharness.gates import (
    Sizes,
    baseline_of,
    check_family,
    check_processes,
    check_resolvable,
    load_policy,
    spreads_from,
    stricter,
)
from evalharness.metrics import Estimates, Evidence, Spread
from evalharness.metrics.task_groups import EVERY, whole_suite
from evalharness.probes.registry import check_probes, probes_of
from evalharness.run import assets
from evalharness.run.command import Command
from evalharness.run.directory import Run
from evalharness.run.finished import is_judged, open_finished
from evalharness.run.new_folder import check_new
from evalharness.spec.model import ModelSpec, load_model_spec
from evalharness.spec.permissions import as_options
from evalharness.spec.slices import MOST, SlicedDocument, subsets
from evalharness.spec.suite import Suite, load_suite
from evalharness.spec.yamlfile import load_yaml
from evalharness.workflow.chat_templates import tokenizer_of_tasks
from evalharness.workflow.servers import check_servers
from evalharness.workflow.stopping import stopping, unwatched

if TYPE_CHECKING:
    from evalharness.data.items import PreparedTasks
    from evalharness.spec.policy import Policy
    from evalharness.workflow.memory_plan import MemoryPlan

BLOCK_TOKENS = 8192  # about a minute's work on two cores: what a killed run loses at most


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What every candidate of a reference has in common: validated, with every default explicit."""

    reference: ModelSpec
    suite: Suite
    policy: Policy
    texts: list[Text]
    tasks: PreparedTasks | None
    device: str | None
    stopping: dict[str, Any] | None  # the rule by which it may stop early
    warnings: list[str]
    block_tokens: int
    spreads: Mapping[str, Sequence[Spread]] | None  # of an earlier run, for planning
    family: int = 1  # candidates whose verdicts are corrected for their number, and decide

    @property
    def deciding(self) -> Policy:
        """The policy at the confidence that the first of the candidates to pass takes."""
        return stricter(self.policy, self.family)

    def job(self, candidate: ModelSpec, **own: Any) -> Job:
        """The comparison with ``candidate``; ``own`` are the other fields of `Job`."""
        check_servers(self.reference, candidate, self.suite)
        text = calibration_of(candidate, self.suite)
        notes = [*self.warnings, *unprobed(self.suite, self.reference, candidate)]
        shared = vars(self) | {"warnings": notes}
        return Job(**shared, candidate=candidate, calibration=text, **own)


@dataclass(frozen=True, kw_only=True)
class Job(Shared):
    """One comparison."""

    candidate: ModelSpec
    calibration: list[Text]  # what the candidate was calibrated on
    out: Path
    resume: bool
    command: Command
    cache: bool  # keep the reference's hidden states for other candidates
    folder: Path | None = None  # of the runs of several candidates, this one among them
    memory: MemoryPlan | None = None  # made already, where several jobs share a reference

    @property
    def resume_command(self) -> Command:
        """The command that takes this run up again, and those beside it."""
        return self.command.resuming(self.folder or self.out)


class Options(TypedDict, total=False):
    """What is asked of a comparison, with one candidate or with several; see `plan_shared`."""

    suite: str | Path
    gates: str | Path
    device: str | None
    limit: int | None
    stop_early: bool
    looks: int | None
    plan_from: str | Path | None


def plan_job(
    base: str | Path,
    candidate: str | Path,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    cache: bool = False,
    command: Command | None = None,
    **options: Unpack[Options],
) -> Job:
    """Read and check everything that can be checked without loading weights.

    Parameters
    ----------
    base, candidate : the model files.
    out : the run directory, new or empty; default: `default_out`.
    resume : an unfinished run to take up instead.
    cache : keep the reference's hidden states, and use those kept.
    command : what was typed; default: ``evalharness compare`` with these options.
    options : see `plan_shared`.

    Raises
    ------
    InputError : anything that is wrong with the inputs, by file and key.

    """
    reference, other = load_model_spec(base), load_model_spec(candidate)
    find_model(reference, base)
    find_model(other, candidate)
    if resume is not None:
        path = Path(resume)
        if is_judged(Run.open(path).manifest):
            open_finished(path)  # what a process killed at the very end left is put in place
            raise InputError(
                "this run is complete: there is nothing to resume",
                path=path,
                key="--resume",
                remedy="`gate RUN --write` decides it again; `report RUN` renders it again.",
            )
    else:
        path = Path(out) if out is not None else default_out(reference.name, other.name)
        check_new(path)
    if command is None:
        command = compare_command((base, candidate), options, out=out, resume=resume, cache=cache)
    return plan_shared(reference, **options).job(
        other, out=path, resume=resume is not None, command=command, cache=cache
    )


def compare_command(files: Sequence[str | Path], options: Options, **more: Any) -> Command:
    """The command line that asks for the same comparison, and may do what the caller may."""
    named = {key.replace("_", "-"): value for key, value in {**options, **more}.items()}
    return Command("compare", tuple(files), {**named, **as_options()})


def plan_shared(
    reference: ModelSpec,
    *,
    suite: str | Path = "quick",
    gates: str | Path = "default",
    device: str | None = None,
    limit: int | None = None,
    stop_early: bool = False,
    looks: int | None = None,
    plan_from: str | Path | None = None,
    family: int = 1,
) -> Shared:
    """Read and check what does not depend on a candidate.

    Parameters
    ----------
    reference : the reference's spec.
    suite, gates : a file, or the name of one that ships.
    device : for both models, in place of the model files' own.
    limit : at most so many documents per corpus and items per task.
    stop_early : stop as soon as every blocking gate on text is decided.
    looks : the same, at so many planned moments.
    plan_from : an earlier run, whose spreads say what a limit takes instead of the defaults.
    family : candidates whose verdicts, corrected for their number, decide.

    Raises
    ------
    InputError : anything that is wrong with the inputs, by file and key.

    """
    rule = stopping(stop_early, looks)
    suite_file = assets.find("suites", suite)
    chosen = _limited(load_suite(suite_file), limit)
    policy = load_policy(assets.find("gates", gates))
    texts, notes = read_texts(chosen)
    tasks = None
    if chosen.tasks:
        from evalharness.data.items import prepare_tasks

        tokenizer = tokenizer_of_tasks(reference, chosen, load_yaml(suite_file))
        tasks = prepare_tasks(chosen.tasks, seed=chosen.seed, tokenizer=tokenizer)
        notes += tasks.messages
    check_probes(chosen, load_yaml(suite_file))
    notes += check_slices(chosen, texts, suite_file, limited=limit is not None)
    baseline_of(policy)  # refused now, where it is missing or of a newer version
    spreads = _spreads(policy, plan_from)
    _check_sizes(policy, family, sizes(chosen, texts, tasks), spreads)
    notes += check_processes(policy, timed_processes(chosen))
    if stop_early:
        notes += unwatched(policy)
    return Shared(
        reference=reference,
        suite=chosen,
        policy=policy,
        texts=texts,
        tasks=tasks,
        device=device,
        stopping=rule,
        warnings=notes,
        block_tokens=BLOCK_TOKENS // (4 if rule else 1),
        spreads=spreads,
        family=family,
    )


def _check_sizes(
    policy: Policy, family: int, have: Sizes, spreads: Mapping[str, Sequence[Spread]] | None
) -> None:
    """Raise `InputError` for what the suite is too small for, or so many candidates too many."""
    if family > 1:
        check_family(policy, family)
    asked = stricter(policy, family)
    try:
        check_resolvable(asked, have, spreads)
    except InputError as error:
        if family == 1:
            raise
        why = f"--family-wise asks each of {family} candidates for {asked.confidence:.6g}."
        raise InputError(
            error.message,
            path=error.path,
            line=error.line,
            key=error.key,
            remedy=f"{error.remedy or ''} {why}".strip(),
        ) from None


def timed_processes(suite: Suite) -> int | None:
    """Fresh processes in which ``suite`` has latency measured; None: it does not."""
    return suite.latency.processes if "latency" in suite.probes else None


def unprobed(suite: Suite, *specs: ModelSpec) -> list[str]:
    """Probes that an engine in a process of its own has nothing for, each with the reason."""
    engine = next((s.model.engine for s in specs if runs_apart(s)), None)
    if engine is None:
        return []
    return [f"{probe.name} not measured: {engine} has no modules" for probe in probes_of(suite)]


def calibration_of(candidate: ModelSpec, suite: Suite) -> list[Text]:
    """The text that ``candidate`` was calibrated on, where a probe holds it against the suite's."""
    wanted = any(probe.reads_calibration for probe in probes_of(suite))
    return calibration_texts(candidate, suite) if wanted else []


def _spreads(policy: Policy, run: str | Path | None) -> dict[str, tuple[Spread, ...]] | None:
    if run is None:
        return None
    opened = open_finished(Path(run), judged=False)
    return spreads_from(policy, Estimates(Evidence(opened)), str(run))


def sizes(suite: Suite, texts: list[Text], tasks: PreparedTasks | None) -> Sizes:
    """How many documents and items there will be to decide on; those of one text are one."""
    found = tasks.tasks if tasks is not None else ()
    items = {t.name: t.items - len(t.repeats) for t in found}
    docs = [SlicedDocument(t.corpus, t.id, t.attributes) for t in texts]
    named = subsets(suite.model_dump()["slices"], docs)
    held = [t.text if t.tokens is None else t.tokens.tobytes() for t in texts]
    documents = Counter(corpus for corpus, _ in {(t.corpus, h) for t, h in zip(texts, held)})
    slices = {
        s.name: None
        if "length" in s.where
        else len({h for d, h in zip(docs, held, strict=True) if s.takes(d)})
        for s in named
    }
    groups = _groups(tasks) if tasks is not None else {}
    # One document each at best; a dry run cuts the windows and knows.
    windows = suite.layers.windows if "layers" in suite.probes else None
    probed = None if windows is None else min(windows, sum(documents.values()))
    return Sizes(documents, items, slices, groups, probed)


def _groups(tasks: PreparedTasks) -> dict[str, dict[str, float]]:
    """The weights of tasks in each group that has an aggregate, and in the mean of all."""
    items = {t.name: t.items for t in tasks.tasks}
    found: dict[str, dict[str, float]] = {}
    for group in tasks.groups.values():
        leaves = lm_eval.group_leaves(group)
        if leaves:
            key = lm_eval.group_metrics(group)[0]
            found[group.name] = lm_eval.group_weights(group, key, {n: items[n] for n in leaves})
    members, weights = whole_suite(found, list(items))
    return found | ({EVERY: weights} if len(members) > 1 and EVERY not in found else {})


def check_slices(suite: Suite, texts: list[Text], path: Path, limited: bool) -> list[str]:
    """Raise `InputError` for a slice that no document is in, or that makes too many subsets.

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


def default_out(reference: str, other: str) -> Path:
    """``runs/REFERENCE--OTHER-TIME``."""
    now = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{tidy(reference)}--{tidy(other)}-{now}"


def tidy(name: str) -> str:
    """``name`` as a directory may be called: no hidden one, none above, none too long."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).lstrip(".")[:80] or "-"
