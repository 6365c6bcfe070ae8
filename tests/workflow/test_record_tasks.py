"""Tasks recorded in a run, and what happens when memory runs out meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from evalharness.errors import RunError
from evalharness.metrics import Estimates, Evidence
from evalharness.pair.tasks import packed_lm
from evalharness.pair.tasks.packed_lm import PackedScorer
from evalharness.progress import Progress
from evalharness.report import text_summary
from evalharness.run.directory import Run
from evalharness.workflow.compare import compare
from evalharness.workflow.plan import plan_job
from evalharness.workflow.record_tasks import record_tasks
from evalharness.workflow.several import compare_many, plan_many
from tests.pair.tasks.lm_sides import TASKS, prepare, side

Tiny = Callable[..., Path]


def test_out_of_memory_halves_the_batch_and_what_is_said_of_scoring_is_a_warning(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same records come out; a model that cannot be packed is named in the run."""
    pair = side(tiny, 0), side(tiny, 1)
    suite: Any = SimpleNamespace(batch_size=4, seed=0, tokenizers="same")
    real = pair[1].model.model.forward

    def forward(*args: Any, input_ids: Any, **options: Any) -> Any:
        if len(input_ids) > most and input_ids.shape[1] > 20:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(*args, input_ids=input_ids, **options)

    pair[1].model.model.forward = forward
    sides: list[Any] = [SimpleNamespace(loaded=p, device=p.device) for p in pair]
    tables: list[dict[str, pd.DataFrame]] = []
    said: list[str] = []

    def record(run: Run) -> None:
        record_tasks(
            *sides,
            prepare("choose.yaml"),
            suite,
            run,
            progress=Progress(),
            say=said.append,
            between=lambda: None,
        )

    for most in (99, 1):
        run = Run.create(tmp_path / str(most), {"warnings": ["before"]})
        record(run)
        tables.append({n: run.table(n).to_pandas() for n in ("items", "item_tokens", "tasks")})
        assert run.manifest["warnings"] == ["before"]
    assert said == [f"out of memory: continuing with {n} task requests at a time" for n in (2, 1)]
    for name, frame in tables[0].items():
        assert len(frame) > 0
        pd.testing.assert_frame_equal(
            frame, tables[1][name], rtol=1e-4, atol=1e-5, check_exact=False
        )

    monkeypatch.setattr(PackedScorer, "takes", lambda self, requests: False)
    monkeypatch.setattr(packed_lm, "unsupported", lambda side: "it is odd")
    run = Run.create(tmp_path / "odd", {"warnings": ["before"]})
    most = 99
    record(run)
    assert run.manifest["warnings"] == [
        "before",
        "tiny0: it is odd; tasks are scored request by request, and without KL",
        "tiny1: it is odd; tasks are scored request by request, and without KL",
    ]
    assert len(run.table("item_tokens")) == 0


@pytest.mark.e2e
def test_the_score_of_a_group_reaches_the_result_the_report_and_a_resumed_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the leaves' records, so that it does not matter which process scored them."""
    suite = project / "suite.yaml"
    suite.write_text(suite.read_text() + f"tasks:\n  - {{path: {TASKS / 'both.yaml'}, limit: 4}}\n")
    files = project / "base.yaml", project / "candidate.yaml"
    options: dict[str, Any] = {"suite": suite, "gates": project / "gates.yaml"}
    with monkeypatch.context() as patched:
        write = Run.write_block

        def dies_after_a_task(self: Run, block: str, tables: Any) -> None:
            write(self, block, tables)
            if block.startswith("task-"):
                raise RunError("killed")

        patched.setattr(Run, "write_block", dies_after_a_task)
        with pytest.raises(RunError, match="killed"):
            compare(plan_job(*files, out=project / "run", **options))
    result, run = compare(plan_job(*files, resume=project / "run", **options))
    acc = {t.task: t for t in result.tasks if t.metric == "acc"}
    group = acc["both"]
    assert (group.items, group.leaves) == (8, ["choose", "finish"])
    leaves = [acc["choose"].candidate, acc["finish"].candidate]
    assert group.candidate == pytest.approx(sum(leaves) / 2)
    for file in ("report.html", "summary.md"):
        assert "group of 2 tasks" in (run.path / file).read_text()
    assert "group of 2 tasks" in text_summary(result)
    # It is no task of its own: no metric and no gate takes it for one, but for a group.
    estimates = Estimates(Evidence(run))
    scopes = [s for id in ("task.score.reference", "task.flips") for s in estimates.scopes(id)]
    assert {s["task"] for s in scopes if "task" in s} == {"choose", "finish"}
    assert {s["group"] for s in scopes if "task" not in s} >= {"both"}


@pytest.mark.e2e
def test_task_prompts_that_do_not_fit_are_fed_again_with_the_same_scores(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is planned for before the reference is loaded, and told."""
    suite = project / "suite.yaml"
    suite.write_text(suite.read_text() + f"tasks:\n  - {{path: {TASKS / 'choose.yaml'}}}\n")
    (project / "int8.yaml").write_text(
        "from: base.yaml\nname: int8\nsimulate: {weights: {bits: 8, granularity: channel}}\n"
    )
    files = [project / "candidate.yaml", project / "int8.yaml"]
    options: dict[str, Any] = {"suite": suite, "gates": project / "gates.yaml"}
    scores = []
    for share in (0.25, 1e-8):
        monkeypatch.setattr("evalharness.pair.tasks.kept_prompts.SHARE", share)
        folder, jobs = plan_many(
            project / "base.yaml", files, out=project / f"runs{share}", **options
        )
        outcomes, _ = compare_many(folder, jobs, Progress())
        scores.append([o.result.tasks for o in outcomes if o.result is not None])
        logs = "".join(path.read_text() for path in folder.glob("*/log.jsonl"))
        assert ("the rest did not fit" in logs) == (share < 0.1)
    assert scores[0] == scores[1]
    assert len(scores[0]) == 2
