"""Several candidates of one reference: it is loaded once, each candidate gets a run of its own.

    DIR/CANDIDATE/      a run, as of `compare` with one candidate
    DIR/combined.html   all of them in one table, with the verdicts corrected for their number
    DIR/combined.json   the same for programs (`spec.combined`)

A candidate that cannot be measured is reported, and the others continue. The exit code is the worst
of all: 4 (could not finish), 2 (wrong input found only by loading), 1 (failed), 3 (inconclusive),
0. With ``family_wise`` it is that of the corrected verdicts.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from evalharness.engines.registry import find_model
from evalharness.errors import EvalHarnessError, InputError, Interrupted
from evalharness.probes.registry import probes_of
from evalharness.progress import Progress
from evalharness.run.command import Command
from evalharness.run.differences import differences
from evalharness.run.directory import Run
from evalharness.run.files import TEMPORARY, write_text
from evalharness.run.finished import is_judged, rewriting
from evalharness.run.manifest import MANIFEST
from evalharness.run.new_folder import check_new, holds_nothing
from evalharness.spec.combined import Combined
from evalharness.spec.model import ModelSpec, load_model_spec
from evalharness.spec.result import Result
from evalharness.workflow.compare import compare
from evalharness.workflow.family import Member, corrected, one_of
from evalharness.workflow.plan import (
    Job,
    Options,
    compare_command,
    default_out,
    plan_shared,
    tidy,
)
from evalharness.workflow.seal import finish

COMBINED = "combined.html"
COMBINED_DATA = "combined.json"


@dataclass(frozen=True)
class Outcome:
    """One candidate's result, or why there is none."""

    job: Job
    result: Result | None = None
    error: EvalHarnessError | None = None

    @property
    def exit_code(self) -> int:
        """As if this candidate had been compared alone."""
        if self.result is not None:
            return self.result.exit_code
        return self.error.exit_code if self.error is not None else 4

    @property
    def member(self) -> Member:
        """As one of several."""
        why = "" if self.error is None else str(self.error)
        return Member(self.job.candidate.name, self.job.out, self.result, self.exit_code, why)


def plan_many(
    base: str | Path,
    candidates: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    cache: bool | None = None,
    command: Command | None = None,
    family_wise: bool = False,
    **options: Unpack[Options],
) -> tuple[Path, list[Job]]:
    """The directory of all runs, and a checked plan for each candidate.

    Parameters
    ----------
    base, candidates : the model files.
    out : the directory of all runs, new or empty; default: `default_out`.
    resume : such a directory, to finish.
    cache : keep the reference's hidden states; None: unless the suite times the reference.
    family_wise : the verdicts corrected for the number of candidates decide.
    command, options : as of `plan_job`.

    Raises
    ------
    InputError : anything that is wrong with the inputs, by file and key.

    """
    reference, specs = load_model_spec(base), [load_model_spec(c) for c in candidates]
    folders = [tidy(s.name) for s in specs]
    for name, file in zip(folders, candidates):
        if folders.count(name) > 1:
            raise InputError(
                f"several candidates are called {name!r}",
                path=file,
                key="name",
                remedy="Each candidate's run is a directory of that name: give each its own.",
            )
    folder = _folder(reference, len(specs), out, resume)
    begun = [(folder / name / MANIFEST).exists() for name in folders]
    find_model(reference, base)
    for spec, file, name, there in zip(specs, candidates, folders, begun):
        find_model(spec, file)
        if not there:
            check_new(folder / name)
    count = len(specs)
    shared = plan_shared(reference, **options, family=count if family_wise else 1)
    if count > 1:
        shared = replace(shared, warnings=[*shared.warnings, one_of(count, shared.policy)])
    if command is None:
        more = {"out": out, "resume": resume, "no-cache": cache is False, "cache": cache}
        more["family-wise"] = family_wise
        command = compare_command((base, *candidates), options, **more)
    if cache is None:
        cache = not any(probe.times_reference for probe in probes_of(shared.suite))
    jobs = [
        shared.job(
            spec, out=folder / name, resume=there, command=command, cache=cache, folder=folder
        )
        for spec, name, there in zip(specs, folders, begun)
    ]
    return folder, jobs


def compare_many(
    folder: Path,
    jobs: Sequence[Job],
    progress: Progress,
    on_error: Callable[[Outcome], None] = lambda outcome: None,
) -> tuple[list[Outcome], Combined]:
    """Measure and judge every candidate that is not done; writes the table of all."""
    from evalharness.engines.device_memory import gib
    from evalharness.pair.faults import free_memory
    from evalharness.pair.tasks.kept_prompts import KeptPrompts
    from evalharness.workflow.memory_plan import MemoryPlan, plan_memory
    from evalharness.workflow.own_tokens import check_own_tokens
    from evalharness.workflow.positions import check_positions
    from evalharness.workflow.reference import Reference

    # All plans first: once the reference is loaded, less memory is free.
    prompts = _room_for_prompts(jobs)
    if prompts:
        progress.detail(f"task prompts of the reference: at most {gib(prompts)} are kept")
    planned: list[MemoryPlan | EvalHarnessError] = []
    for job in jobs:
        try:
            check_positions(job)
            check_own_tokens(job)
            planned.append(
                plan_memory(job.reference, job.candidate, job.suite, job.device, reserved=prompts)
            )
        except EvalHarnessError as error:
            planned.append(error)
    in_turn = {
        n: p for n, p in enumerate(planned) if isinstance(p, MemoryPlan) and p.mode == "in_turn"
    }
    # The cache's entries are batches: those who read the same ones need them of one size.
    least = min((p.batch_size for p in in_turn.values()), default=1)
    for number, plan in in_turn.items():
        planned[number] = replace(plan, batch_size=least)
    reference: Reference | None = None
    outcomes = []
    # Those that share the device with the whole reference come before those that need its place.
    for number in sorted(range(len(jobs)), key=lambda n: n in in_turn):
        job, memory = jobs[number], planned[number]
        progress.tell(f"candidate {number + 1} of {len(jobs)}: {job.candidate.name}")
        try:
            if job.resume and is_judged(Run.open(job.out).manifest):
                outcome = Outcome(job, _judged_again(job))
            elif isinstance(memory, EvalHarnessError):
                outcome = Outcome(job, error=memory)
            else:
                if reference is None:
                    reference = Reference(job, memory, progress)
                    reference.prompts = KeptPrompts(prompts)
                result, _ = compare(replace(job, memory=memory), progress, reference)
                outcome = Outcome(job, result)
        except Interrupted:
            raise
        except EvalHarnessError as error:
            if reference is None:
                raise  # no candidate will fare better
            outcome = Outcome(job, error=error)
        if outcome.error is not None:
            on_error(outcome)
        outcomes.append((number, outcome))
        gc.collect()
        if reference is not None:
            free_memory(reference.side.device)
    ordered = [outcome for _, outcome in sorted(outcomes, key=lambda pair: pair[0])]
    with progress.step("holding the verdicts against the number of candidates"):
        combined = corrected([o.member for o in ordered], jobs[0].policy, jobs[0].family > 1)
    _write_table(folder, [o.result for o in ordered if o.result is not None], combined)
    return ordered, combined


def _judged_again(job: Job) -> Result:
    """The result of a finished run of the same inputs, by the policy of now; nothing is loaded.

    Raises
    ------
    InputError : the run was made from other inputs, or a model's files may have changed since.

    """
    from evalharness.workflow.inputs import model_files, planned

    with rewriting(job.out) as run:
        now = {**planned(job), "model_files": model_files(job)}
        changed = differences(run.manifest, now)
        if changed:
            raise InputError(
                f"this run is finished, and was made from other inputs: {'; '.join(changed)}",
                path=job.out,
                remedy="Restore them, remove the run to make it again, or give another --out.",
            )
        return finish(run, job.policy)


def _room_for_prompts(jobs: Sequence[Job]) -> int:
    """Bytes of main memory for the reference's task prompts; 0 where none are shared."""
    from torch import device

    from evalharness.engines.device_memory import free_bytes
    from evalharness.pair.tasks.kept_prompts import SHARE

    if len(jobs) < 2 or not jobs[0].suite.tasks:
        return 0
    return int(SHARE * (free_bytes(device("cpu")) or 0))


def _write_table(folder: Path, results: list[Result], combined: Combined) -> None:
    from evalharness.report.combined import render_combined

    if results:
        for stray in folder.glob(f"combined.*{TEMPORARY}"):  # of a process that was killed here
            stray.unlink(missing_ok=True)
        write_text(folder / COMBINED, render_combined(results, combined))
        write_text(folder / COMBINED_DATA, combined.model_dump_json(indent=1) + "\n")


def _folder(
    reference: ModelSpec, count: int, out: str | Path | None, resume: str | Path | None
) -> Path:
    if resume is not None:
        if not (any(Path(resume).glob(f"*/{MANIFEST}")) or _only_begun(Path(resume))):
            raise InputError(
                "holds no run to resume",
                path=resume,
                key="--resume",
                remedy="With several candidates, give the directory that holds their runs.",
            )
        return Path(resume)
    if out is not None:
        if not _only_begun(Path(out)):
            check_new(Path(out))
        return Path(out)
    return default_out(reference.name, f"{count}-candidates")


def _only_begun(folder: Path) -> bool:
    """Whether a comparison left ``folder`` that died before it had written a manifest."""
    return folder.is_dir() and all(p.is_dir() and holds_nothing(p) for p in folder.iterdir())
