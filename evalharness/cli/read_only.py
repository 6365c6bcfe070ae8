"""Runs that are only read, by choice or by need: they are judged all the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evalharness.cli.stdout import complain

_RECORDS = "records"


@contextmanager
def writable(
    run: Path, *, records: bool = False, write: bool = True
) -> Iterator[tuple[Path, bool]]:
    """Yield ``run``, or a copy for as long as it takes; and whether it is the run itself.

    Parameters
    ----------
    run : the run directory.
    records : whether records will be added. A copy is then whole, and kept; its user is told where.
    write : whether the run itself may be changed; its user is told how, where not.

    """
    may = all(_may_write(p) for p in (run, run / _RECORDS) if p.is_dir())
    if not run.is_dir() or (may and write):
        yield run, True
        return
    from evalharness.run.finished import open_finished

    open_finished(run, judged=False)  # no other process writes it
    copy = Path(tempfile.mkdtemp(prefix="evalharness-")) / run.resolve().name
    try:
        where = "nothing is written there"
        if records:
            shutil.copytree(run, copy)
            for path in (copy, *copy.rglob("*")):  # a copy is as read-only as what it is of
                path.chmod(0o700 if path.is_dir() else 0o600)
            where += f", but in a copy, {copy}"
        else:
            copy.mkdir()
            (copy / _RECORDS).symlink_to((run / _RECORDS).resolve())
            for path in run.iterdir():
                if path.is_file():
                    shutil.copyfile(path, copy / path.name)
        if write:
            complain(f"note: {run} is read-only: {where}")
        else:
            complain(f"note: nothing is written; --write replaces the verdict of {run}")
        yield copy, False
    finally:
        if not records:
            shutil.rmtree(copy.parent)


def _may_write(path: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return os.access(path, os.W_OK | os.X_OK, effective_ids=effective)
