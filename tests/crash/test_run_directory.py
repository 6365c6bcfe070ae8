"""A run is recorded, judged and judged again without a model, and cut off on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from evalharness.errors import InputError
from evalharness.run import files
from evalharness.run.directory import Run
from evalharness.run.finished import is_judged, open_finished, rewriting
from evalharness.run.records import SENSITIVITY
from tests.crash.disk import LOSSES, Disk

BLOCKS = ("00000", "00001")
EVERY = 9  # one operation in so many; benchmarks/crash_points.py takes each


def table(block: str) -> pa.Table:
    rows = [{"module": block, "what": "swap", "doc": 0, "tokens": 1, "kl": 0.5}]
    return pa.Table.from_pylist(rows, schema=SENSITIVITY)


def record(folder: Path, told: Callable[[str], None] = lambda block: None) -> None:
    """Begin the run or take it up, to its end, as a comparison does."""
    path = folder / "run"
    if (path / "manifest.json").exists():
        if is_judged(Run.open(path).manifest):
            return
        run = Run.resume(path, {})
    else:
        run = Run.create(path, {})
    for block in BLOCKS:
        if block not in run.done():
            run.write_block(block, {"sensitivity": table(block)})
        told(block)
    run.update(seconds={})
    run.seal()
    decide(run, "first")
    run.close()


def decide(run: Run, verdict: str) -> None:
    for name in ("policy.yaml", "result.json"):
        run.write_text(name, verdict)
    run.seal()


def judge(folder: Path) -> None:
    """Decide it again."""
    with rewriting(folder / "run") as run:
        decide(run, "second")


def content(folder: Path) -> Any:
    """What the finished run holds; raises where it is not one."""
    run = open_finished(folder / "run")
    run.verify(("",))
    texts = {(run.path / name).read_text() for name in ("policy.yaml", "result.json")}
    assert not list(run.path.rglob("*.tmp"))
    return run.table("sensitivity").to_pylist(), texts


def cut_off(work: Callable[[Path], None], root: Path, places: Path) -> Iterator[tuple[str, Path]]:
    """What a kill and each loss of power leave before every few operations of ``work``."""
    left: list[tuple[str, Path]] = []
    met = 0

    def before(operation: str) -> None:
        nonlocal met
        met += 1
        if met % EVERY == 0:
            for how in ("kill", *LOSSES):
                place = places / f"{met}-{how}"
                disk.killed(place) if how == "kill" else disk.powerless(place, how, met)
                left.append((f"{how} before {operation}", place))

    disk = Disk(root, before)
    places.mkdir()
    with disk.watched():
        work(root)
    yield from left


def test_a_comparison_is_taken_up_wherever_it_was_cut_off(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    points = list(cut_off(record, root, tmp_path / "places"))
    expected = content(root)
    assert len(points) > 30
    for point, place in points:
        record(place)
        assert content(place) == expected, point


def test_a_decision_is_made_or_not_wherever_it_was_cut_off(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    record(root)
    before = content(root)
    points = list(cut_off(judge, root, tmp_path / "places"))
    after = content(root)
    assert before != after
    for point, place in points:
        run = open_finished(place / "run")
        assert {(run.path / "result.json").read_text()} in (before[1], after[1]), point
        judge(place)
        assert content(place) == after, point


def test_a_block_that_was_said_to_be_recorded_is(tmp_path: Path) -> None:
    """Whatever is lost of what came after."""
    root = tmp_path / "root"
    root.mkdir()
    disk = Disk(root, lambda operation: None)

    def told(block: str) -> None:
        for loss in LOSSES:
            place = tmp_path / f"{block}-{loss}"
            disk.powerless(place, loss, seed=7)
            run = Run.resume(place / "run", {})
            assert set(BLOCKS[: BLOCKS.index(block) + 1]) <= run.done()
            assert not run.damaged
            run.close()

    with disk.watched():
        record(root, told)


def test_a_run_that_syncs_nothing_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulation has teeth."""
    monkeypatch.setattr(files, "sync", lambda path: None)
    root = tmp_path / "root"
    root.mkdir()
    disk = Disk(root, lambda operation: None)
    with disk.watched():
        record(root)
    for loss in ("dropped", "names"):
        disk.powerless(tmp_path / loss, loss)
        with pytest.raises(InputError):
            content(tmp_path / loss)
