"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp"


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary name to write to, which becomes ``path`` when the block ends.

    Where the block raises, or the disk is full, nothing of it is left and ``path`` is as it was.
    The name is this process's own, so that two writers never share one.

    Parameters
    ----------
    durable : the disk holds the file, whole and under its name, before the block is left, so that
        nothing written later can outlive it when power fails.

    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        if durable:
            sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing; the disk holds their names afterwards."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


def sync(path: Path) -> None:
    """Return once the disk holds the contents of a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """`sync` of a folder, where the system can."""
    with contextlib.suppress(OSError):  # Windows cannot, nor can some network file systems
        sync(path)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
