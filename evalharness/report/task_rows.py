"""Tasks as rows of a table: scores of both sides, the paired shift, the flips."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from evalharness.errors import plural
from evalharness.metrics import REGISTRY
from evalharness.metrics.task_groups import EVERY
from evalharness.metrics.tasks import FLIPS, SCORE_SHIFT
from evalharness.report import numbers
from evalharness.report.estimates import find
from evalharness.report.interval_bars import axis, forest_bar
from evalharness.spec.estimate import Estimate, Scope
from evalharness.spec.result import Result, TaskResult
from evalharness.spec.suite import DEFAULT_TEMPLATE

_MOST_LEAVES = 8  # of a group, that a summary shows one by one


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One task: scores of both sides, the paired shift, the flips; how far predictions moved."""

    task: TaskResult
    reference: str
    candidate: str
    shift: Estimate | None
    flips: Estimate | None
    moved: list[Estimate]  # at its tokens, in the first row of each task
    bar: Markup
    note: str

    @property
    def items(self) -> str:
        """Return how many items were scored; lm-eval may give a score and none of its items."""
        t = self.task
        return numbers.MISSING if not t.items and t.reference is not None else f"{t.items:,}"


def task_rows(result: Result) -> list[TaskRow]:
    """Return the tasks in the order they were run, the shifts of one score on one scale."""
    shifts = {(t.task, t.metric): find(result, SCORE_SHIFT, scope_of(t)) for t in result.tasks}
    scales = {
        metric: axis(
            [0.0, *(x for (_, m), e in shifts.items() if e and m == metric for x in _ends(e))]
        )
        for _, metric in shifts
    }
    rows: list[TaskRow] = []
    for t in result.tasks:
        e = shifts[t.task, t.metric]
        bar = (
            Markup("")
            if e is None
            else forest_bar(scales[t.metric], e.value, e.low, e.high, str(numbers.estimate(e)))
        )
        flips = find(result, FLIPS, scope_of(t))
        first = all(row.task.task != t.task for row in rows)
        at_tokens = REGISTRY.shown("tasks") if first else []
        found = [find(result, m.id, {"task": t.task}) for m in at_tokens]
        moved = [m for m in found if m is not None]
        rows.append(
            TaskRow(
                task=t,
                reference=_score(t.reference),
                candidate=_score(t.candidate),
                shift=e,
                flips=flips,
                moved=moved,
                bar=bar,
                note=_note(t),
            )
        )
    return rows


def brief_rows(result: Result) -> tuple[list[TaskRow], str]:
    """Return the rows of a summary, a large group without its tasks, and what says so."""
    rows = task_rows(result)
    folded = {
        (leaf, row.task.metric)
        for row in rows
        if len(row.task.leaves) > _MOST_LEAVES and row.task.task != EVERY
        for leaf in row.task.leaves
    }
    kept = [r for r in rows if r.task.leaves or (r.task.task, r.task.metric) not in folded]
    left_out = len(rows) - len(kept)
    return kept, f"{plural(left_out, 'task')} of groups, in the report" if left_out else ""


def scope_of(t: TaskResult) -> Scope:
    """Return the scope of a row's own metrics."""
    return {"group" if t.leaves else "task": t.task, "metric": t.metric}


def _note(t: TaskResult) -> str:
    """Say what a group brings together, how a task was asked, which items count as one."""
    if t.leaves and t.task == EVERY:
        return f"the suite's tasks, a group as one: plain mean of {len(t.leaves)}"
    if t.leaves:
        return f"group of {plural(len(t.leaves), 'task')}"
    notes = []
    if not t.higher_is_better:
        notes.append("lower is better: a shift above 0 is a gain")
    if t.chat_template:
        named = "" if t.chat_template == DEFAULT_TEMPLATE else f" {t.chat_template!r}"
        notes.append(f"chat template{named}")
    if t.system:
        notes.append("system message")
    if t.clusters_by:
        notes.append(f"items with the same {t.clusters_by} are one cluster: {t.clusters:,}")
    return "; ".join(notes)


def _ends(e: Estimate) -> tuple[float | None, ...]:
    return e.value, e.low, e.high


def _score(x: float | None) -> str:
    """Format a score with four decimals, as lm-eval does."""
    return numbers.number(x, 4 if x is None or abs(x) < 10 else 2)
