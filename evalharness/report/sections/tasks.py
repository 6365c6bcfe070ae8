"""lm-eval's scores on both sides, the paired shift, and the items that flipped."""

from __future__ import annotations

from evalharness.metrics.scopes import of_tasks
from evalharness.report import task_rows
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result

MOST_FLIPPED = 60
MOST_PROMPT = 1500


def render(r: Result) -> str:
    """lm-eval's scores on both sides, the paired shift, and the items that flipped."""
    rows = task_rows.task_rows(r)
    named = [task_rows.scope_of(t) for t in r.tasks]
    moved = [e for row in rows for e in row.moved]
    others = [
        e
        for e in r.metrics
        if of_tasks(e.scope)
        and e not in moved
        and not (e.id.startswith("task.") and e.scope in named)
    ]
    if not (rows or r.flipped or others):
        return ""
    return template(
        "sections/tasks.html.j2",
        rows=rows,
        moved=[(row.task.task, row.moved) for row in rows if row.moved],
        others=others,
        flipped=r.flipped[:MOST_FLIPPED],
        more=max(0, len(r.flipped) - MOST_FLIPPED),
        prompt_limit=MOST_PROMPT,
    )


SECTION = Section(
    "tasks", "Tasks", render, place=110, missing="Not measured: the suite names no task."
)
