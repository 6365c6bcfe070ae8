"""Which runs may be read as results: one rule for whoever judges, renders or compares them.

A run is finished once its measurement has gone through all that it planned (every block of texts,
or up to an early stop; every probe and task) and has put the digests of its records into the
manifest. It is judged once ``result.json`` is among those. What is not finished, what another
process is writing, and what differs from its digests is refused: it says nothing of the candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evalharness.errors import InputError
from evalharness.run.command import Command, add_resume
from evalharness.run.directory import LOCK, RECORDS, Run, refuse_writer
from evalharness.run.manifest import Manifest

READ = (RECORDS, "result.json", "policy.yaml", "baseline.json")  # what a verdict or a report uses


def is_finished(manifest: Manifest) -> bool:
    """Whether everything that was planned is recorded, and sealed."""
    return "files" in manifest and "seconds" in manifest


def is_judged(manifest: Manifest) -> bool:
    """Whether there is nothing to resume: a verdict was written, too."""
    return is_finished(manifest) and "result.json" in manifest["files"]


def open_finished(path: Path, *, judged: bool = True) -> Run:
    """Open a run for reading, with all that is read of it verified.

    Parameters
    ----------
    path : the run directory.
    judged : refuse a run that was measured and has no verdict yet.

    Raises
    ------
    InputError : it is no run, is not finished, is being written, or was changed afterwards.

    """
    run = Run.open(path)
    if _being_written(path):
        refuse_writer(path)
    run.settle()
    _check(run, judged)
    return run


@contextmanager
def rewriting(path: Path, *, judged: bool = True) -> Iterator[Run]:
    """As `open_finished`, for whoever writes into the run: no other process does meanwhile."""
    run = Run.open(path)
    if _being_written(path):
        refuse_writer(path)
    require_finished(run, judged=judged)  # what is refused is not even locked
    run.acquire()
    try:
        run.manifest = Run.open(path).manifest
        run.settle()
        run.clear()
        _check(run, judged)
        yield run
    finally:
        run.close()


def require_finished(run: Run, *, judged: bool = True) -> None:
    """Raise `InputError`, with the command that finishes it, unless ``run`` is finished."""
    manifest, path = run.manifest, run.path
    if ("files" in manifest) != ("sha256" in manifest) and not run.intact:
        run.verify(())  # says which of the two was taken out
    finish = manifest.get("resume") or add_resume(path)
    if not is_finished(manifest):
        raise InputError(
            "the run is not finished: not all that it was to measure is recorded",
            path=path,
            remedy=f"Finish it: {finish}",
        )
    if judged and not is_judged(manifest):
        raise InputError(
            "the run is measured, and has no verdict yet",
            path=path,
            remedy=f"Decide it: `{Command.gate(path)}`. Or finish it: {finish}",
        )


def _check(run: Run, judged: bool) -> None:
    require_finished(run, judged=judged)
    run.verify(READ)


def _being_written(path: Path) -> bool:
    """Whether a process holds the lock; one that cannot be tried is held by nobody we could meet.

    Nothing is created or changed: the run may lie where this process may only read.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where a writer's files cannot be replaced while they are read
        return False
    try:
        with open(path / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
