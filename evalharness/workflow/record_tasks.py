"""Every task of a suite on both sides, each recorded before the next begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evalharness.engines.out_of_memory import is_out_of_memory
from evalharness.errors import RunError
from evalharness.pair.faults import OutOfMemoryError, free_memory
from evalharness.pair.side import Side
from evalharness.progress import Progress
from evalharness.run.directory import Run
from evalharness.spec.suite import Suite

if TYPE_CHECKING:
    from evalharness.data.items import PreparedTasks
    from evalharness.pair.tasks.kept_prompts import KeptPrompts

GROUPS = "groups"  # the block that they are recorded in


def record_tasks(
    reference: Side,
    candidate: Side,
    prepared: PreparedTasks,
    suite: Suite,
    run: Run,
    *,
    progress: Progress,
    say: Callable[[str], None],
    between: Callable[[], None],
    kept: KeptPrompts | None = None,
) -> None:
    """Score every task that ``run`` does not hold yet, with half the batch where memory runs out.

    Parameters
    ----------
    say : told when a smaller batch is tried.
    between : called after each task; may raise `KeyboardInterrupt`.
    kept : the reference's hidden states, where other candidates will meet the same prompts.

    Raises
    ------
    OutOfMemoryError : not even one request at a time fits.

    """
    from evalharness.pair.tasks.run import run_tasks, task_tables

    batch_size = suite.batch_size
    with progress.count("tasks on both models", None, "requests") as advance:
        while True:
            done = {n.removeprefix("task-") for n in run.done() if n.startswith("task-")}
            try:
                for task in run_tasks(
                    reference.loaded,
                    candidate.loaded,
                    prepared,
                    batch_size=batch_size,
                    seed=suite.seed,
                    progress=advance.report,
                    done=frozenset(done),
                    kept=kept,
                    same_tokens=suite.tokenizers == "same",
                ):
                    run.warn(task.notes)
                    run.write_block(f"task-{task.task}", task_tables(task))
                    between()
                break
            except (RuntimeError, MemoryError, RunError) as error:
                if not is_out_of_memory(error.__cause__ or error):
                    raise
                said = str(error)
            if batch_size == 1:
                raise OutOfMemoryError(f"out of memory with one task request at a time: {said}")
            batch_size //= 2
            say(f"out of memory: continuing with {batch_size} task requests at a time")
            free_memory(reference.device)
            free_memory(candidate.device)
    if kept is not None and kept.full:
        run.log("memory", f"{len(kept)} batches of task prompts are kept; the rest did not fit")
    _record_groups(prepared, run)


def _record_groups(prepared: PreparedTasks, run: Run) -> None:
    """lm-eval's aggregates of groups, from the records of their leaves, whoever recorded them."""
    from evalharness.pair.tasks.run import group_table

    if prepared.groups and GROUPS not in run.done():
        run.write_block(GROUPS, {"groups": group_table(prepared, run.table("tasks"))})
