"""A run is of its inputs alone: whatever else decides a number is refused on resuming, by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalharness.errors import InputError, RunError
from evalharness.progress import Progress
from evalharness.run.directory import Run
from evalharness.workflow import inputs
from evalharness.workflow.compare import compare
from evalharness.workflow.several import compare_many, plan_many
from tests.workflow.jobs import job

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models

TASK = """task: own
dataset_path: json
dataset_kwargs: {data_files: {test: items.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: ["yes", "no"]
doc_to_target: "{{a}}"
"""


@pytest.fixture
def own(project: Path, tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with model files of its own, a task, and a run that was killed after a block."""
    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 60)
    shutil.copytree(tiny(), project / "weights")
    (project / "base.yaml").write_text(
        "version: 1\nname: base\nmodel: {path: ./weights, dtype: float32, device: cpu}\n"
    )
    (project / "own.yaml").write_text(TASK)
    rows = [{"q": f"quick {i}", "a": i % 2} for i in range(4)]
    (project / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with open(project / "suite.yaml", "a") as file:
        file.write("tasks:\n  - {path: own.yaml}\n")
    with monkeypatch.context() as patched:
        write = Run.write_block

        def once(self: Run, block: str, tables: Any) -> None:
            write(self, block, tables)
            raise RunError("killed")

        patched.setattr(Run, "write_block", once)
        with pytest.raises(RunError, match="killed"):
            compare(job(project, stop_early=True), Progress())
    return project


def edited(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "configuration": (
        lambda p: edited(p / "weights/config.json", rms_norm_eps=0.1),
        r"settings.candidate.rms_norm_eps \(1e-06, now 0.1\)",
    ),
    "generation": (
        lambda p: edited(p / "weights/generation_config.json", repetition_penalty=1.5),
        r"settings.candidate.generation.repetition_penalty \(none, now 1.5\)",
    ),
    "template": (
        lambda p: (p / "weights/chat_template.jinja").write_text("{{ messages }}"),
        "templates.reference has changed",
    ),
    "attributes": (
        lambda p: replaced(p / "texts.jsonl", '"odd"', '"weird"'),
        "texts has changed",
    ),
    "task data": (
        lambda p: replaced(p / "items.jsonl", "quick 1", "slow 1"),
        "task_data.own has changed",
    ),
    "task file": (
        lambda p: replaced(p / "own.yaml", "task: own", "task: own\ntarget_delimiter: ': '"),
        "task_data.own has changed",
    ),
    "policy": (
        lambda p: replaced(p / "gates.yaml", "max: 1.0e-6", "max: 1.0e-5"),
        "stopping_policy has changed",
    ),
}


def test_what_decides_a_number_is_refused_by_name(own: Path) -> None:
    """Each by itself, on the same unfinished run; with nothing changed it goes on."""
    files = [p for p in own.rglob("*") if p.is_file() and not p.is_relative_to(own / "run")]
    before = {p: p.read_bytes() for p in files}
    for change, said in CHANGES.values():
        change(own)
        with pytest.raises(InputError, match=said) as refused:
            compare(job(own, None, resume=own / "run", stop_early=True), Progress())
        assert "begun with other inputs" in str(refused.value)
        (own / "weights/chat_template.jinja").unlink(missing_ok=True)
        for path, data in before.items():
            path.write_bytes(data)
    compare(job(own, None, resume=own / "run", stop_early=True), Progress())


def test_other_versions_are_refused(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the records would have other last bits."""
    real = inputs.versions
    monkeypatch.setattr(inputs, "versions", lambda *d: {**real(*d), "torch": "9.9"})
    with pytest.raises(InputError, match=r"versions.torch \(.*, now '9.9'\)"):
        compare(job(own, None, resume=own / "run", stop_early=True), Progress())


def test_a_finished_run_among_several_is_of_its_inputs_too(project: Path) -> None:
    """A policy that changed decides it again; other inputs are refused, and nothing is loaded."""

    def planned(**more: Any) -> Any:
        options = {"suite": project / "suite.yaml", "gates": project / "gates.yaml"}
        return plan_many(project / "base.yaml", [project / "candidate.yaml"], **options, **more)

    folder, jobs = planned(out=project / "runs")
    (first,), _ = compare_many(folder, jobs, Progress())
    assert first.exit_code == 1
    (project / "gates.yaml").write_text(
        "version: 1\ndefaults: {min_n: 2}\ngates:\n  - {metric: kl.mean, max: 1000}\n"
    )
    (second,), _ = compare_many(*planned(resume=folder), Progress())
    assert second.exit_code == 0
    replaced(project / "texts.jsonl", "Pack my box", "Pack no box")
    with pytest.raises(InputError, match=r"made from other inputs: texts has changed"):
        compare_many(*planned(resume=folder), Progress())


def test_what_dies_before_its_first_manifest_can_be_begun_again(project: Path) -> None:
    """By --out and by --resume alike: there is nothing in it yet."""
    (project / "runs" / "int4" / "records").mkdir(parents=True)
    for more in ({"out": project / "runs"}, {"resume": project / "runs"}):
        files = {"suite": project / "suite.yaml", "gates": project / "gates.yaml"}
        folder, (job,) = plan_many(
            project / "base.yaml", [project / "candidate.yaml"], **files, **more
        )
        assert (folder, job.resume) == (project / "runs", False)
