"""A run that may only be read is judged as any other, and stays as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalharness.cli.read_only import writable
from evalharness.gates import load_policy
from evalharness.run.directory import Run
from evalharness.run.finished import open_finished
from evalharness.workflow.seal import finish
from tests.cli.command import cli
from tests.synthetic.pair import Pair
from tests.synthetic.pair import run as measured


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A run that fails its policy and passes ``loose.yaml``."""
    (tmp_path / "p.yaml").write_text("gates: [{metric: top1.agreement, min: 99%, min_n: 2}]\n")
    (tmp_path / "loose.yaml").write_text("gates: [{metric: top1.agreement, min: 1%, min_n: 2}]\n")
    made = measured(Pair(0.4, blocks=1, documents=12, items=0.02))
    kept = Run.create(tmp_path / "run", {**made.manifest, "token_stream": "x", "tokenizers": ["y"]})
    kept.write_block("00000", {k: t for k, t in made.tables.items() if k != "items"})
    kept.update(seconds={})
    assert finish(kept, load_policy(tmp_path / "p.yaml")).verdict == "FAIL"
    kept.close()
    return kept.path


@pytest.fixture
def run(own: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, on a disk that is not written."""
    before = content(own)
    may = os.access

    def access(path: Path, mode: int, **more: bool) -> bool:
        return may(path, mode) and not (mode & os.W_OK and Path(path).is_relative_to(own))

    monkeypatch.setattr(os, "access", access)  # root may write whatever the permissions say
    yield own
    assert content(own) == before


def test_gate_asks_what_if_and_writes_when_told(own: Path) -> None:
    """Another policy's verdict is printed and delivered; the run's own is replaced by --write."""
    before = content(own)
    loose, copy = own.parent / "loose.yaml", own.parent / "copy.md"
    code, out, said = cli("gate", own, "--gates", loose, "-o", copy)
    assert (code, "PASS" in out, "report:" in out) == (0, True, False)
    assert "PASS" in copy.read_text()
    assert said == f"note: nothing is written; --write replaces the verdict of {own}\n"
    assert content(own) == before
    code, out, said = cli("gate", own, "--gates", loose, "--write")
    assert (code, said, f"report: {own / 'report.html'}" in out) == (0, "", True)
    assert json.loads(cli("show", own, "--format", "json")[1])["verdict"] == "PASS"


def test_gate_judges_by_any_policy_and_delivers(run: Path) -> None:
    """With the exit code of what it decided, not of what was decided before."""
    code, out, said = cli("gate", run, "--write")
    assert (code, "report:" in out) == (1, False)
    assert said == f"note: {run} is read-only: nothing is written there\n"
    copy = run.parent / "copy.json"
    loose = run.parent / "loose.yaml"
    code, out, said = cli("gate", run, "--gates", loose, "--format", "json", "-o", copy)
    assert (code, json.loads(out)["verdict"]) == (0, "PASS")
    assert json.loads(copy.read_text()) == json.loads(out)


def test_report_prints_with_the_exit_code_of_the_verdict(run: Path) -> None:
    """There is no file that it could point at."""
    code, out, said = cli("report", run)
    assert (code, "FAIL" in out, "nothing is written there" in said) == (1, True, True)


def test_a_baseline_is_stored_elsewhere(run: Path) -> None:
    """The run is only read."""
    assert cli("baseline", "save", run, "--to", run.parent / "b.json")[0] == 0


def test_what_adds_records_works_on_a_copy_that_is_kept(run: Path) -> None:
    """As a bisect does."""
    with writable(run, records=True) as (place, itself):
        assert not itself
        open_finished(place).write_text("repair.yaml", "x")
    assert open_finished(place).path == place != run
