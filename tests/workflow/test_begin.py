"""How token statistics are computed is decided once for a run, and stands in its manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalharness.errors import RunError
from evalharness.pair.texts import statistics
from evalharness.progress import Progress
from evalharness.run.directory import Run
from evalharness.workflow import begin as module
from evalharness.workflow.compare import compare
from evalharness.workflow.plan import plan_job

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models

Planned = Callable[..., Any]


@pytest.fixture
def planned(project: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """A job of the project's pair, on blocks of a document or two."""
    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 60)

    def plan(**more: Any) -> Any:
        options = {"suite": project / "suite.yaml", "gates": project / "gates.yaml"}
        return plan_job(project / "base.yaml", project / "candidate.yaml", **options, **more)

    return plan


def dies_after_a_block(planned: Planned, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is left unfinished."""
    with monkeypatch.context() as patched:
        write = Run.write_block

        def once(self: Run, block: str, tables: Any) -> None:
            write(self, block, tables)
            raise RunError("killed")

        patched.setattr(Run, "write_block", once)
        with pytest.raises(RunError, match="killed"):
            compare(planned(out=out), Progress())


@pytest.mark.parametrize("works", [True, False])
def test_a_compiler_that_is_missing_is_in_the_manifest(
    planned: Planned, project: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    """And the plain way is taken from the first block to the last."""
    monkeypatch.setattr(module, "worth_compiling", lambda *_: True)
    monkeypatch.setattr(module, "can_compile", lambda: works)
    monkeypatch.setattr(statistics, "_compiled_sums", lambda: None)
    dies_after_a_block(planned, project / "run", monkeypatch)
    assert Run.open(project / "run").manifest["compiled_statistics"] is works


def test_a_run_is_resumed_in_the_way_it_was_begun(
    planned: Planned, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that has come since changes nothing; one that is gone is named."""
    monkeypatch.setattr(module, "worth_compiling", lambda *_: True)
    monkeypatch.setattr(module, "can_compile", lambda: False)
    dies_after_a_block(planned, project / "plain", monkeypatch)
    monkeypatch.setattr(module, "can_compile", lambda: True)
    dies_after_a_block(planned, project / "compiled", monkeypatch)
    seen: list[bool] = []
    real = statistics.token_statistics

    def watched(*args: Any, compiled: bool) -> Any:
        seen.append(compiled)
        return real(*args, compiled=False)

    monkeypatch.setattr("evalharness.pair.texts.token_pass.token_statistics", watched)
    compare(planned(resume=project / "plain"), Progress())
    assert set(seen) == {False}
    monkeypatch.setattr(module, "can_compile", lambda: False)
    with pytest.raises(RunError, match="begun with compiled token statistics"):
        compare(planned(resume=project / "compiled"), Progress())


def test_documents_of_one_text_are_in_the_manifest(planned: Planned, project: Path) -> None:
    """They count as one in every estimate, and are named."""
    lines = (project / "texts.jsonl").read_text().splitlines()
    again = [line.replace('"id": "d', '"id": "again') for line in lines[:2]]
    (project / "texts.jsonl").write_text("\n".join([*lines, *again, again[0]]) + "\n")
    result, run = compare(planned(out=project / "run"), Progress())
    groups = run.manifest["same_text"]
    assert sorted(map(len, groups)) == [2, 3]
    names = run.table("documents").to_pandas().set_index("doc")["id"]
    for group in groups:
        assert {names[n].removeprefix("texts.jsonl:") for n in group} in (
            {"d0", "again0"},
            {"d1", "again1"},
        )
    (shift,) = (m for m in result.metrics if m.id == "nll.shift" and not m.scope)
    assert shift.clusters == len(lines)
    assert sum("3 of 15 documents hold the text of another" in w for w in result.warnings) == 1
