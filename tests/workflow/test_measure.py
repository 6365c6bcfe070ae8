"""What is measured, and what is said meanwhile, through whole comparisons of tiny models."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from evalharness.errors import RunError
from evalharness.pair.side import Side
from evalharness.progress import Progress
from evalharness.run.directory import Run
from evalharness.workflow.compare import compare
from evalharness.workflow.plan import plan_job

pytestmark = pytest.mark.e2e


def compared(project: Path, out: str = "run") -> Any:
    """Result and run of the project's pair."""
    options = {"suite": project / "suite.yaml", "gates": project / "gates.yaml"}
    files = project / "base.yaml", project / "candidate.yaml"
    return compare(plan_job(*files, out=project / out, **options), Progress())


@pytest.mark.parametrize("errors", ["[own_on_clean]", "[total, own, inherited, own_on_clean]"])
def test_every_kind_of_layer_error_reaches_the_result_and_a_gate(
    project: Path, errors: str
) -> None:
    """Each kind that a suite accepts, alone or with the others."""
    suite = project / "suite.yaml"
    suite.write_text(
        suite.read_text().replace("{windows: 4}", f"{{windows: 40, errors: {errors}}}")
    )
    (project / "gates.yaml").write_text(
        "version: 1\ndefaults: {min_n: 2}\ngates:\n  - metric: layer.error.own_on_clean\n"
        '    scope: {layer: "model.layers.*"}\n    max: 5\n'
    )
    result, _ = compared(project)
    found = [row for row in result.layers if row.error == "own_on_clean"]
    assert {row.layer for row in found} == {"model.layers.0", "model.layers.1"}
    assert all(row.median is not None and row.median > 0 for row in found)
    assert [gate.verdict for gate in result.gates] == ["PASS"]
    if "total" in errors:  # the first block has the clean input: all four say the same of it
        first = {r.error: r.median for r in result.layers if r.layer == "model.layers.0"}
        assert first["own_on_clean"] == first["own"] == first["total"]


def test_warnings_about_numbers_stand_beside_the_result_and_others_in_the_log(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, however often it is given; none on the terminal, none lost."""
    hidden = Side.hidden

    def warning(self: Side, ids: Any, *more: Any) -> Any:
        warnings.warn("overflow encountered in exp", RuntimeWarning, stacklevel=1)
        warnings.warn("inputs are cast to float16", UserWarning, stacklevel=1)
        return hidden(self, ids, *more)

    monkeypatch.setattr(Side, "hidden", warning)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none comes through
        result, run = compared(project)
    assert [w for w in result.warnings if "overflow" in w] == ["overflow encountered in exp"]
    lines = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert [x["message"] for x in lines if x["kind"] == "warning"] == ["inputs are cast to float16"]
    assert not any("float16" in w for w in result.warnings)


def test_a_run_that_dies_keeps_the_warnings_about_its_numbers(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are true of the records that are kept, so whoever resumes it must hear of them."""
    hidden = Side.hidden
    calls = iter(range(1000))

    def dying(self: Side, ids: Any, *more: Any) -> Any:
        warnings.warn("overflow encountered in exp", RuntimeWarning, stacklevel=1)
        if next(calls) > 12:
            raise RunError("the machine is gone")
        return hidden(self, ids, *more)

    monkeypatch.setattr(Side, "hidden", dying)
    with pytest.raises(RunError, match="the machine is gone"):
        compared(project)
    assert "overflow encountered in exp" in Run.open(project / "run").manifest["warnings"]
