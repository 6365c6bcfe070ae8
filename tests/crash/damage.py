"""What happens to a file: a bit flips, a stretch is zeroed, the end is cut off, it is gone."""

from __future__ import annotations

import random
from pathlib import Path

KINDS = ("flipped", "zeroed", "cut", "deleted")


def files_of(folder: Path) -> list[Path]:
    """The files below ``folder`` that hold anything, in the order of their names."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


def damage(path: Path, kind: str, chance: random.Random) -> str:
    """Damage the file; returns what was done, in words."""
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    if kind == "deleted":
        path.unlink()
        return f"{path.name} deleted"
    if kind == "flipped":
        data[at] ^= 1 << chance.randrange(8)
    elif kind == "zeroed":
        length = min(len(data) - at, chance.choice((1, 16, 512)))
        data[at : at + length] = bytes(length)
    else:
        del data[at:]
    path.write_bytes(data)
    return f"{path.name} {kind} at {at} of {path.stat().st_size or len(data)} bytes"
