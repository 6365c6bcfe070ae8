"""What the user allows files to do. No file can allow it to itself.

Files of a pull request are written by whoever opened it, so what they may run or read is for the
command line to say (``--allow-code``, ``--confined``), for the user's environment
(``EVALHARNESS_ALLOW_CODE=1``, ``EVALHARNESS_CONFINED=1``), or for the program that calls us.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ALLOW_CODE = "EVALHARNESS_ALLOW_CODE"
CONFINED = "EVALHARNESS_CONFINED"
REMEDY = (
    "If you trust it, allow it with --allow-code or EVALHARNESS_ALLOW_CODE=1; a file cannot allow "
    "it to itself."
)
_granted = {ALLOW_CODE: False, CONFINED: False}


@contextmanager
def granted(*, allow_code: bool = False, confined: bool = False) -> Iterator[None]:
    """Allow code, or confine files to the repository, beyond what the environment says."""
    before = dict(_granted)
    _granted[ALLOW_CODE] |= allow_code
    _granted[CONFINED] |= confined
    try:
        yield
    finally:
        _granted.update(before)


def as_options() -> dict[str, bool]:
    """What was allowed or confined beyond the environment, as options of our commands."""
    return {"allow-code": _granted[ALLOW_CODE], "confined": _granted[CONFINED]}


def code_allowed() -> bool:
    """Whether files may have Python code run: of a task, of a model, in a pickle."""
    return _is(ALLOW_CODE)


def outside(path: Path, named_by: Path) -> str | None:
    """Why the file ``named_by`` may not name ``path``, or None: it may.

    Unless files are confined they may name any file and directory, and so may a file that lies
    outside the repository itself: the user named it. What is neither file nor directory (a device,
    a pipe) never ends, or is consumed by reading it.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        return f"must be a regular file (got {path}, a device or a pipe)"
    if not _is(CONFINED):
        return None
    root = repository()
    if path.resolve().is_relative_to(root) or not named_by.resolve().is_relative_to(root):
        return None
    return f"{path} lies outside {root}"


def repository() -> Path:
    """The git repository around the working directory, or the working directory."""
    here = Path.cwd().resolve()
    return next((p for p in (here, *here.parents) if (p / ".git").exists()), here)


def _is(name: str) -> bool:
    return _granted[name] or os.environ.get(name, "").lower() in ("1", "true", "yes")
