"""Where a run may begin."""

from __future__ import annotations

import os
from pathlib import Path

from evalharness.errors import InputError
from evalharness.run.files import TEMPORARY
from evalharness.run.manifest import MANIFEST


def check_new(path: Path) -> None:
    """Refuse an output directory that holds anything, or that cannot be made."""
    try:
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
    except OSError as error:
        raise InputError(
            f"cannot be made ({error.strerror})", path=str(path)[:200], key="--out"
        ) from None
    usable = there.is_dir() and os.access(there, os.W_OK) and there.parts[1:2] != ("proc",)
    if there != path and not usable:
        raise InputError(f"cannot be made in {there}", path=path, key="--out")
    if holds_nothing(path):
        return
    if path.exists():
        what = "holds another run" if (path / MANIFEST).exists() else "is not empty"
        raise InputError(
            what,
            path=path,
            key="--out",
            remedy="Give a new directory, or --resume to continue an unfinished run.",
        )


def holds_nothing(path: Path) -> bool:
    """Whether ``path`` holds at most what a process leaves that dies before its first manifest."""
    if path.is_file():
        return False
    left = {p.name for p in path.iterdir()} if path.is_dir() else set()
    begun = {n for n in left if n.startswith(MANIFEST) and n.endswith(TEMPORARY)}
    return left <= {"records", "lock", *begun} and not any((path / "records").glob("*"))
