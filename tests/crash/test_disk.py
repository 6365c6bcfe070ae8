"""The simulated disk itself: what was synced is there, and what was not may be lost."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evalharness.run.files import make_folder, write_text
from tests.crash.disk import LOSSES, Disk


def synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def left(disk: Disk, to: Path, loss: str) -> dict[str, str]:
    disk.powerless(to, loss, seed=1)
    return {str(p.relative_to(to)): p.read_text() for p in to.rglob("*") if p.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    (path / "old").write_text("old")
    return path


def test_each_operation_is_met_before_it_is_done(root: Path) -> None:
    met: list[str] = []
    disk = Disk(root, met.append)
    with disk.watched():
        (root / "a").mkdir()
        (root / "a" / "b").write_text("text")
        os.replace(root / "a" / "b", root / "c")
        (root / "a").rmdir()
        (root / "c").unlink()
        (root.parent / "elsewhere").write_text("not met")
    operations = ["mkdir a", "open a/b", "write a/b", "write half of a/b", "replace c"]
    assert met == [*operations, "remove a", "remove c"]
    assert Path.write_text  # what was patched is as it was
    (root / "d").write_text("not met")
    assert len(met) == 7


def test_what_is_put_aside_is_what_a_kill_leaves(root: Path, tmp_path: Path) -> None:
    """Before any operation; what a program has not handed to the kernel is in neither."""
    twin = tmp_path / "twin"
    shutil.copytree(root, twin)

    def work(folder: Path) -> None:
        write_text(folder / "old", "new")
        with open(folder / "a", "w") as file:
            file.write("held back")
            (folder / "b").mkdir()
            file.flush()
            file.write("held back, too")
            os.replace(folder / "old", folder / "b" / "c")

    met: list[str] = []

    def aside(operation: str) -> None:
        disk.killed(tmp_path / str(len(met)))
        met.append(operation)

    disk = Disk(root, aside)
    with disk.watched():
        work(root)
    for number in range(len(met)):
        pid = killed_before(number, twin, work)
        assert texts(twin, str(pid)) == texts(tmp_path / str(number), str(os.getpid()))
        shutil.rmtree(twin)
        shutil.copytree(tmp_path / "0", twin)


def killed_before(number: int, folder: Path, work: Callable[[Path], None]) -> int:
    """Do it in another process, which ends before that operation; returns its id."""
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 137
        return pid
    met = itertools.count()

    def before(operation: str) -> None:
        if next(met) == number:
            os._exit(137)

    with Disk(folder, before).watched():
        work(folder)
    os._exit(1)


def texts(folder: Path, pid: str) -> dict[str, str | None]:
    """Names, with the process left out of them, and what is there."""
    return {
        str(p.relative_to(folder)).replace(pid, "PID"): p.read_text() if p.is_file() else None
        for p in folder.rglob("*")
    }


def test_what_is_not_synced_is_lost(root: Path, tmp_path: Path) -> None:
    """A file's bytes by its own fsync, its name by its folder's."""
    disk = Disk(root, lambda operation: None)
    with disk.watched():
        (root / "bytes").write_text("x")
        synced(root / "bytes")
        (root / "name").write_text("x")
        (root / "old").write_text("new")
    assert left(disk, tmp_path / "1", "dropped") == {"old": "old"}
    assert left(disk, tmp_path / "2", "names") == {"old": "old", "bytes": "x", "name": ""}
    with disk.watched():
        synced(root)
        synced(root / "name")
        os.replace(root / "name", root / "old")
    assert left(disk, tmp_path / "3", "dropped") == {"old": "old", "bytes": "x", "name": "x"}
    assert left(disk, tmp_path / "4", "names") == {"old": "x", "bytes": "x"}
    some = left(disk, tmp_path / "5", "some")
    assert some in ({"old": "old", "bytes": "x", "name": "x"}, {"old": "x", "bytes": "x"})


@pytest.mark.parametrize("loss", LOSSES)
def test_our_own_writing_survives_it(root: Path, tmp_path: Path, loss: str) -> None:
    """Whole, with the folders above it, once the function has returned."""
    disk = Disk(root, lambda operation: None)
    with disk.watched():
        make_folder(root / "a" / "b")
        write_text(root / "a" / "b" / "c", "text")
        write_text(root / "old", "new")
    assert left(disk, tmp_path / "left", loss) == {"a/b/c": "text", "old": "new"}
