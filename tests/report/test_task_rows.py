"""Tasks as rows of a summary."""

from __future__ import annotations

from collections.abc import Callable

from evalharness.report.task_rows import brief_rows, task_rows
from evalharness.results.tasks import tasks
from evalharness.spec.result import Result
from tests.metrics.test_task_groups import estimates_of, suite_of


def test_a_summary_leaves_out_the_tasks_of_a_large_group(bare: Result) -> None:
    """And says so; those of a small one, the groups and all tasks together stay."""
    large = {f"m{k}": (1, 2, 30) for k in range(9)}
    small = {"a": (0, 1, 40), "b": (1, 0, 40)}
    weights = {"large": dict.fromkeys(large, 1 / 9), "small": {"a": 0.5, "b": 0.5}}
    run = estimates_of(suite_of({**large, **small, "one": (0, 0, 50)}, weights))
    found = tasks(run.evidence)
    every = found[-1]
    assert (every.task, every.leaves) == ("all", ["large", "small", "one"])
    assert (every.items, every.right_to_wrong, every.wrong_to_right) == (400, 19, 10)
    result = bare.model_copy(update={"tasks": found})
    rows, left_out = brief_rows(result)
    assert [row.task.task for row in rows] == ["a", "b", "one", "large", "small", "all"]
    assert left_out == "9 tasks of groups, in the report"
    assert brief_rows(result.model_copy(update={"tasks": found[9:12]}))[1] == ""


def test_a_score_that_is_better_when_lower_says_what_its_shift_means(
    result: Callable[..., Result],
) -> None:
    """And a score without items does not say that it is of none."""
    r = result("FAIL")
    lower = r.tasks[0].model_copy(update={"higher_is_better": False, "items": 0})
    found = task_rows(r.model_copy(update={"tasks": [lower, *r.tasks[1:]]}))
    assert "lower is better: a shift above 0 is a gain" in found[0].note
    assert "lower is better" not in found[1].note
    assert (found[0].items, found[1].items) == ("—", f"{r.tasks[1].items:,}")
