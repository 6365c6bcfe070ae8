"""Task scores on both sides of a pair, by lm-eval's own evaluator, in one process.

One leaf task after the other. The side that is asked first scores every batch on both, the other
finds its answers ready (`packed_lm`); lm-eval's own code makes scores of them, and items are
paired. What comes out is ready to be recorded, so a run that dies keeps every finished task.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from evalharness.compat.lm_eval import evaluate_task
from evalharness.compat.silence import quiet
from evalharness.data.items import PreparedTask, PreparedTasks
from evalharness.engines.base import LoadedModel
from evalharness.engines.out_of_memory import is_out_of_memory
from evalharness.errors import EvalHarnessError, RunError
from evalharness.pair.tasks.item_rows import Scored, pair_samples, position_rows
from evalharness.pair.tasks.scores import TaskScore, group_scores, task_scores
from evalharness.run import records

if TYPE_CHECKING:
    from evalharness.pair.tasks.kept_prompts import KeptPrompts
    from evalharness.pair.tasks.packed_lm import PackedScorer

RequestsAnswered = Callable[[int, int, str], None]  # requests answered, of how many, what runs now


@dataclass(frozen=True)
class TaskRun:
    """One leaf task on both sides."""

    task: str
    frame: pd.DataFrame = field(repr=False)  # schema records.ITEMS, one row a document and metric
    scores: tuple[TaskScore, ...]  # lm-eval's aggregates, one a metric
    # Schema records.ITEM_TOKENS, one row an item and scored position; empty if not scored together.
    positions: pd.DataFrame = field(repr=False)
    anomalies: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # how it was scored, where that is not as asked


def run_tasks(
    reference: LoadedModel,
    candidate: LoadedModel,
    prepared: PreparedTasks,
    *,
    batch_size: int,
    seed: int = 0,
    progress: RequestsAnswered | None = None,
    done: Collection[str] = (),
    kept: KeptPrompts | None = None,
    same_tokens: bool = True,
) -> Iterator[TaskRun]:
    """Score each leaf task on both sides; yields it as soon as it is done.

    Parameters
    ----------
    batch_size : documents a batch (a prompt with its continuations), the same on both sides, and
        requests a batch where they cannot be packed. Scores in 16 bits depend on it.
    seed : of sampled generation (``do_sample: true``), the same for each task and side. Few-shot
        examples are drawn with lm-eval's own default seed when the tasks are prepared.
    progress : called with (requests answered, all requests, task and model) on the terminal's own
        streams.
    done : names of tasks to leave out (they are recorded already).
    kept : the reference's hidden states, filled and used: pass the same for its other candidates.
    same_tokens : both sides are asked in the tokens of the reference; else each in its own.

    Raises
    ------
    RunError : a task could not be scored, or its two sides cannot be paired.

    """
    pending = [t for t in prepared.tasks if t.name not in done]
    if not pending:
        return
    count = RequestCount(2 * sum(t.requests for t in pending), progress)
    loaded = (reference, candidate)
    from evalharness.pair.tasks.hflm import cut_prompts

    with quiet():
        try:
            scorer = _scorer(loaded, batch_size, count, kept, same_tokens)
        except (RuntimeError, MemoryError) as error:
            raise _failed(error, "trying whether tasks can be packed") from error
    both = f"{reference.name} and {candidate.name}"
    said: set[str] = set()
    for task in pending:
        with count.terminal(), quiet():
            scored: list[Scored] = []
            for side, lm in zip(loaded, scorer.lms, strict=True):
                count.begin(task.requests, f"{task.name}, {side.name}")
                who = side.name if scored or not scorer.usable else both
                scored.append(_score(task, side.name, lm, seed, who))
                count.end()
            found = [*scorer.notes, *cut_prompts(task.name, *scorer.lms)]
            notes = tuple(n for n in found if n not in said)
            said.update(notes)
            run = _task_run(task, scored[0], scored[1], scorer.positions(), notes)
            run = replace(run, anomalies=(*run.anomalies, *scorer.anomalies(task.name)))
            scorer.forget()
        yield run


def task_tables(task: TaskRun) -> dict[str, pa.Table]:
    """The records of one lm-eval task."""
    return {
        "items": pa.Table.from_pandas(task.frame, schema=records.ITEMS, preserve_index=False),
        "item_tokens": pa.Table.from_pandas(
            task.positions, schema=records.ITEM_TOKENS, preserve_index=False
        ),
        "tasks": pa.Table.from_pylist([asdict(s) for s in task.scores], schema=records.TASKS),
        "anomalies": pa.Table.from_pylist(
            [{"kind": "task", "message": m} for m in task.anomalies], schema=records.ANOMALIES
        ),
    }


def group_table(prepared: PreparedTasks, tasks: pa.Table) -> pa.Table:
    """The records of lm-eval's groups, from those of their leaf ``tasks``."""
    scores = [TaskScore(**row) for row in tasks.to_pylist()]
    rows = [asdict(score) for score in group_scores(prepared, scores)]
    return pa.Table.from_pylist(rows, schema=records.GROUPS)


def _scorer(
    loaded: tuple[LoadedModel, LoadedModel],
    batch_size: int,
    count: RequestCount,
    kept: KeptPrompts | None,
    same_tokens: bool,
) -> PackedScorer:
    from evalharness.pair.tasks.hflm import common_max_length
    from evalharness.pair.tasks.packed_lm import PackedScorer

    return PackedScorer(
        *loaded,
        batch_size=batch_size,
        max_length=common_max_length(*loaded),
        answered=count.answered,
        kept=kept,
        same_tokens=same_tokens,
    )


def _score(task: PreparedTask, name: str, lm: Any, seed: int, who: str) -> Scored:
    """Run lm-eval's evaluator on one side; ``who`` computes meanwhile."""
    lm.nonfinite_generations = 0
    lm.prompts.clear()
    try:
        with _seeded(seed):
            scores, samples = evaluate_task(lm, task.name, task.fresh(), task.samples)
    except RunError as error:
        raise RunError(f"task {task.name} on {who}: {error}") from error
    except EvalHarnessError:
        raise
    except Exception as error:  # whatever a task's own code, or the device, raises
        raise _failed(error, f"task {task.name} on {who}") from error
    return Scored(name, scores, samples, lm.nonfinite_generations)


def _failed(error: Exception, where: str) -> RunError:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if is_out_of_memory(error):
        return RunError(f"{where}: not enough memory ({text}). Use a smaller batch_size")
    return RunError(f"{where}: {type(error).__name__}: {text}")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed what a task may draw from, as lm-eval's command does; restored after."""
    import torch

    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _task_run(
    task: PreparedTask,
    reference: Scored,
    candidate: Scored,
    positions: dict[str, Any],
    notes: tuple[str, ...],
) -> TaskRun:
    paired = pair_samples(task, reference, candidate)
    return TaskRun(
        task.name,
        paired.frame,
        task_scores(task, paired, reference, candidate),
        position_rows(task, paired.clusters, positions),
        paired.anomalies,
        notes,
    )


class RequestCount:
    """Counts answered requests and tells the caller, whose output must not be silenced."""

    def __init__(self, total: int, progress: RequestsAnswered | None) -> None:
        self._total, self._progress = total, progress
        self._count, self._until, self._told, self._label = 0, 0, -1, ""
        self._streams = (sys.stdout, sys.stderr)

    @contextmanager
    def terminal(self) -> Iterator[None]:
        """Remember the streams as they are now: inside, libraries are silenced."""
        self._streams = (sys.stdout, sys.stderr)
        yield

    def begin(self, requests: int, label: str) -> None:
        """One side of one task begins."""
        self._until = min(self._total, self._until + requests)
        self._label = label
        self.answered(0)

    def answered(self, more: int) -> None:
        """Count ``more`` answered requests; a pass over both sides may run ahead of the first."""
        self._count += more
        done = min(self._count, self._total)
        if self._progress is not None and not done == self._told == self._total:
            self._told = done
            with redirect_stdout(self._streams[0]), redirect_stderr(self._streams[1]):
                self._progress(done, self._total, self._label)

    def end(self) -> None:
        """One side of one task is done: no fewer, and if the next side is not ahead, no more."""
        missing = self._until - self._count
        if missing > 0:
            self.answered(missing)
