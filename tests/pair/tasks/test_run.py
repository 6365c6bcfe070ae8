"""Task scores on both sides: NaN, resume, progress, silence, failures."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evalharness.errors import RunError
from evalharness.metrics import Evidence
from evalharness.pair.tasks.run import TaskRun, run_tasks, task_tables
from evalharness.results.tasks import flipped, tasks
from evalharness.run.directory import InMemory
from evalharness.spec.result import TaskResult
from tests.pair.tasks.lm_sides import LOCAL, prepare, run


def evidence(task: TaskRun) -> Evidence:
    """The task's records."""
    return Evidence(InMemory({}, task_tables(task)))


def shown(task: TaskRun) -> list[TaskResult]:
    """The task as a result shows it."""
    return tasks(evidence(task))


def test_a_model_against_itself_shows_no_difference(pair: tuple[Any, Any]) -> None:
    """Every output type: equal scores, no flips."""
    for task in run(pair[0], pair[0], *LOCAL):
        assert task.frame["score_ref"].equals(task.frame["score_cand"].rename("score_ref"))
        assert task.frame["conf_ref"].equals(task.frame["conf_cand"].rename("conf_ref"))
        assert flipped(evidence(task)) == []
        assert all(r.reference == r.candidate for r in task.scores)


def test_swapping_the_sides_swaps_every_number(pair: tuple[Any, Any]) -> None:
    """Reference and candidate are treated alike."""
    a, b = pair
    for one, other in zip(run(a, b, *LOCAL), run(b, a, *LOCAL), strict=True):
        np.testing.assert_allclose(one.frame["score_ref"], other.frame["score_cand"], rtol=1e-5)
        np.testing.assert_allclose(one.frame["score_cand"], other.frame["score_ref"], rtol=1e-5)
        for x, y in zip(one.scores, other.scores, strict=True):
            assert (x.reference, x.candidate) == pytest.approx((y.candidate, y.reference), rel=1e-5)
        for ours, theirs in zip(shown(one), shown(other), strict=True):
            assert ours.right_to_wrong == theirs.wrong_to_right
            assert ours.wrong_to_right == theirs.right_to_wrong


@pytest.mark.parametrize("name", ["choose.yaml", "read.yaml", "finish.yaml", "write.yaml"])
def test_a_broken_candidate_is_an_anomaly_with_no_score(pair: tuple[Any, Any], name: str) -> None:
    """NaN weights: in every output type, generation too."""
    import torch

    reference, candidate = pair
    with torch.no_grad():
        candidate.model.lm_head.weight[7] = math.nan
    (task,) = run(reference, candidate, name)
    assert len(task.anomalies) == 1
    assert task.anomalies[0].startswith("tiny1: NaN or infinite log")
    assert all(r.candidate is None and r.reference is not None for r in task.scores)
    assert task.frame["score_cand"].isna().all()
    assert task.frame["score_ref"].notna().all()
    assert flipped(evidence(task)) == []


def test_tasks_that_are_done_are_left_out(pair: tuple[Any, Any]) -> None:
    """A resumed run does the rest, and yields each task as it ends."""
    prepared = prepare(*LOCAL)
    runs = run_tasks(*pair, prepared, batch_size=2, done={"choose", "read"})
    assert next(runs).task == "write"
    assert [r.task for r in runs] == ["finish"]


def test_results_do_not_depend_on_what_ran_before(pair: tuple[Any, Any]) -> None:
    """Nothing is carried from one task, or one run, to the next."""
    prepared = prepare(*LOCAL)
    first = {r.task: r.frame for r in run_tasks(*pair, prepared, batch_size=2)}
    again = {r.task: r.frame for r in run_tasks(*pair, prepared, batch_size=2, done={"choose"})}
    for name, frame in again.items():
        pd.testing.assert_frame_equal(frame, first[name])


def test_progress_counts_every_request_of_both_sides(
    pair: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """From 0 to all; the callback's own output reaches the terminal, lm-eval's does not."""
    prepared = prepare(*LOCAL)
    seen: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, label: str) -> None:
        seen.append((done, total, label))
        if done == total:
            print("all done", file=sys.stderr)

    list(run_tasks(*pair, prepared, batch_size=2, progress=progress))
    counts = [d for d, _, _ in seen]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 2 * prepared.requests)
    assert {t for _, t, _ in seen} == {2 * prepared.requests}
    assert seen[0][2] == "choose, tiny0"
    assert capsys.readouterr() == ("", "all done\n")


@pytest.mark.parametrize(
    ("tokens", "where"),
    [(20, "task choose on tiny0 and tiny1"), (0, "trying whether tasks can be packed")],
)
def test_a_failing_model_is_one_message(pair: tuple[Any, Any], tokens: int, where: str) -> None:
    """Both models are at work then; the message names the task, or the trial before it."""
    reference, candidate = pair
    real = candidate.model.model.forward

    def fail(*args: Any, input_ids: Any, **options: Any) -> Any:
        if input_ids.shape[1] > tokens:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(*args, input_ids=input_ids, **options)

    candidate.model.model.forward = fail
    with pytest.raises(RunError) as caught:
        run(reference, candidate, "choose.yaml")
    assert str(caught.value) == (
        f"{where}: not enough memory (CUDA out of memory. Tried to allocate 2.00 GiB). "
        "Use a smaller batch_size"
    )


def test_flips_are_counted_from_the_records(pair: tuple[Any, Any]) -> None:
    """Those of the frame."""
    for task in run(*pair, "choose.yaml", "finish.yaml"):
        for result in shown(task):
            rows = task.frame[task.frame["metric"] == result.metric]
            if result.right_to_wrong is None:
                assert not rows["binary"].any()
            else:
                lost = (rows.score_ref == 1) & (rows.score_cand == 0)
                won = (rows.score_ref == 0) & (rows.score_cand == 1)
                assert (result.right_to_wrong, result.wrong_to_right) == (lost.sum(), won.sum())


def test_a_task_that_speaks_of_memory_is_not_taken_for_one_that_ran_out(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own message stands: a smaller batch would not help."""
    task = prepare("choose.yaml").tasks[0].task

    def fails(self: Any, doc: Any, results: Any) -> Any:
        raise KeyError("memory_palace")

    monkeypatch.setattr(type(task), "process_results", fails)
    with pytest.raises(RunError, match=r"KeyError: 'memory_palace'$"):
        run(*pair, "choose.yaml")
