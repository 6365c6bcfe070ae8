"""One rule of which runs may be read, for every reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from evalharness import api
from evalharness.bisect.prepare import opened_for_bisect
from evalharness.errors import InputError
from evalharness.run.directory import Run
from evalharness.run.finished import open_finished, rewriting
from evalharness.run.records import ANOMALIES
from tests.cli.command import cli

RESUME = "evalharness compare a.yaml b.yaml --resume run"
LOOK: dict[str, Callable[[Path], Any]] = {
    "gate": lambda run: cli("gate", run),
    "gate by another policy": lambda run: cli("gate", run, "--gates", "default"),
    "report": lambda run: cli("report", run),
    "show": lambda run: cli("show", run),
    "explain": lambda run: cli("explain", "kl.mean", run),
    "plan": lambda run: cli("plan", "default", "--run", run),
    "init": lambda run: cli("init", run),
    "baseline save": lambda run: cli("baseline", "save", run, "--to", run.parent / "b.json"),
    "baseline bless": lambda run: cli("baseline", "bless", run, "--to", run.parent / "b.json"),
    "bisect": lambda run: opened_for_bisect(run, None).__enter__(),
    "load_run, of Python and pytest": api.load_run,
}
readers = pytest.mark.parametrize("reader", LOOK)


def begun(path: Path, **manifest: Any) -> Run:
    """A run with two blocks recorded, one of which says that it cannot be trusted."""
    run = Run.create(path / "run", {"identity": "x", "resume": RESUME, **manifest})
    for block, rows in (("00000", []), ("00001", [{"kind": "nan", "message": "NaN"}])):
        run.write_block(block, {"anomalies": pa.Table.from_pylist(rows, schema=ANOMALIES)})
    return run


def finished(path: Path) -> Run:
    """The same, measured to the end, with something for a result."""
    run = begun(path, seconds={})
    run.write_text("result.json", "{}")
    run.seal()
    run.close()
    return run


def refusal(reader: str, run: Run) -> str:
    """What ``reader`` says, which exits 2."""
    try:
        found = LOOK[reader](run.path)
    except InputError as error:
        return str(error)
    assert found[0] == 2, found
    return str(found[2])


@readers
def test_no_reader_takes_an_unfinished_run(tmp_path: Path, reader: str) -> None:
    """Killed between two blocks: nothing is judged, nothing is written, and it can be resumed."""
    run = begun(tmp_path)
    run.close()
    before = {p.name: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    assert (
        f"the run is not finished: not all that it was to measure is recorded. Finish it: "
        f"{RESUME}" in refusal(reader, run)
    )
    assert {p.name: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before
    Run.resume(run.path, {"identity": "x"}).close()


@readers
def test_no_reader_takes_a_run_that_is_being_written(tmp_path: Path, reader: str) -> None:
    """A second process sees the lock of the first."""
    run = finished(tmp_path)
    run.acquire()
    assert "another process is writing this run" in refusal(reader, run)
    run.close()


@readers
@pytest.mark.parametrize("name", ["records/anomalies-00001.parquet", "records/done-00001"])
def test_no_reader_takes_a_run_whose_record_is_gone(tmp_path: Path, reader: str, name: str) -> None:
    """What made it untrustworthy was in there."""
    run = finished(tmp_path)
    (run.path / name).unlink()
    assert f"{name}: is missing from the run" in refusal(reader, run)
    assert f"{name}: is missing from the run" in refusal("gate", run)  # and nothing hid it


@readers
@pytest.mark.parametrize("key", ["sha256", "files"])
def test_a_manifest_without_its_digests_is_damaged(tmp_path: Path, reader: str, key: str) -> None:
    """And not one that nobody wanted protected."""
    run = finished(tmp_path)
    file = run.path / "manifest.json"
    rest = {k: v for k, v in json.loads(file.read_text()).items() if k != key}
    file.write_text(json.dumps(rest))
    assert f"manifest.json: {key}: required and missing" in refusal(reader, run)


def test_a_run_that_an_older_version_sealed_half_done_is_not_finished(tmp_path: Path) -> None:
    """Its records have digests, and its measurement never came to an end."""
    run = begun(tmp_path)
    run.write_text("result.json", "{}")
    run.seal()
    run.close()
    with pytest.raises(InputError, match="the run is not finished"):
        open_finished(run.path)


def test_what_was_measured_and_not_judged_waits_for_a_policy(tmp_path: Path) -> None:
    """A policy that turned out wrong at the end costs no measurement."""
    run = begun(tmp_path, seconds={})
    run.seal()
    run.close()
    with pytest.raises(InputError, match=r"has no verdict yet. Decide it: `evalharness gate .*run"):
        open_finished(run.path)
    with rewriting(run.path, judged=False) as opened:
        assert opened.done() == {"00000", "00001"}


# -- sealing


def test_sealing_again_digests_only_what_was_written_since(tmp_path: Path) -> None:
    """Damage stays damage, whoever seals."""
    run = finished(tmp_path)
    record, page = run.path / "records/anomalies-00001.parquet", run.path / "report.html"
    run = Run.open(run.path)
    before = dict(run.manifest["files"])
    record.write_bytes(b"other")
    page.write_text("from elsewhere")
    run.write_text("result.json", "[]")
    run.seal()
    changed = {n for n, d in run.manifest["files"].items() if before.get(n) != d}
    assert changed == {"result.json"}
    with pytest.raises(InputError, match=r"anomalies-00001.parquet: was changed after the run"):
        open_finished(run.path)


def test_sealing_refuses_where_a_listed_record_is_gone(tmp_path: Path) -> None:
    """It never becomes a smaller run."""
    run = finished(tmp_path)
    (run.path / "records/anomalies-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"anomalies-00001.parquet: is missing from the run"):
        Run.open(run.path).seal()
