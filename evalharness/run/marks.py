"""Completion marks: ``done-BLOCK`` says that a block is recorded, and what its files hold.

A mark has two lines: the SHA-256 of the second, and the block's files with theirs as JSON. It is
written last, so that a block whose mark agrees with its files is whole.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

PREFIX = "done-"


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mark(files: list[Path]) -> str:
    """The mark of a block that consists of ``files``."""
    line = json.dumps({file.name: sha256(file) for file in files}, sort_keys=True)
    return f"{hashlib.sha256(line.encode()).hexdigest()}\n{line}\n"


def marked(path: Path) -> dict[str, str] | None:
    """The files that the mark at ``path`` lists, with their SHA-256; None: it is damaged."""
    try:
        digest, line, rest = path.read_text(encoding="utf-8").split("\n")
        files = json.loads(line)
    except (OSError, ValueError):
        return None
    if rest or digest != hashlib.sha256(line.encode()).hexdigest():
        return None
    return {str(name): str(value) for name, value in files.items()}


def keep_whole(records: Path) -> list[str]:
    """Remove from ``records`` what belongs to no whole block; return the damaged blocks' names.

    A block whose mark is missing was never finished, and is not among them.
    """
    kept: set[str] = set()
    damaged = []
    for path in sorted(records.glob(f"{PREFIX}*")):
        files = marked(path)
        if files is not None and all(
            (records / name).is_file() and sha256(records / name) == digest
            for name, digest in files.items()
        ):
            kept |= {path.name, *files}
        else:
            damaged.append(path.name.removeprefix(PREFIX))
    strays = [p for p in records.iterdir() if p.name not in kept]
    # Marks first: without its mark a block is not there, whatever is left of it.
    for path in sorted(strays, key=lambda p: not p.name.startswith(PREFIX)):
        path.unlink()
    return damaged
