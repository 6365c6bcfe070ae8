"""How a run that has its digests is changed: in one step, so that it is the old one or the new one.

What is new is written under ``staged/``, in the folders of the run. Then the manifest is replaced,
which is the step, and only then does the new take the place of the old. Whoever opens the run in
between finds it as it was before, or puts in place what the manifest says.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from evalharness.errors import InputError
from evalharness.run.files import TEMPORARY, sync_folder
from evalharness.run.marks import sha256

FOLDER = "staged"


def settle(run: Path, listed: Mapping[str, str]) -> None:
    """Put in place those files of ``staged/`` that have their SHA-256 in ``listed``.

    Raises
    ------
    InputError : this cannot be written.

    """
    staged = run / FOLDER
    try:
        found = [p for p in sorted(staged.rglob("*")) if p.is_file()]
        for path in found:
            name = path.relative_to(staged).as_posix()
            if name in listed and sha256(path) == listed[name]:
                os.replace(path, run / name)
        if found:
            sync_folder(run / "records")
            sync_folder(run)
    except FileNotFoundError:
        return  # another process does the same
    except OSError as error:
        raise InputError(
            f"a change to this run was cut off and cannot be completed ({error.strerror})",
            path=run,
            remedy="Open it once where you may write in it.",
        ) from None


def clear(run: Path) -> None:
    """Remove what a process that was cut off left behind; only the holder of the lock may."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)
    for stray in run.rglob(f"*{TEMPORARY}"):
        stray.unlink(missing_ok=True)
