"""What differs between the inputs that a run was begun with and those of now, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SIDES = ("reference", "candidate")
_SHOWN = 5  # differences are named at most
_LONG = 40  # characters: what is longer, such as a digest, tells a reader nothing
_NONE = object()


def differences(begun: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name each key of ``now`` that ``begun`` does not have alike, with both values where short."""
    found = [text for key in now for text in _within(key, begun.get(key, _NONE), now[key])]
    more = len(found) - _SHOWN
    return [*found[:_SHOWN], f"and {more} more"] if more > 0 else found


def _within(at: str, old: Any, new: Any) -> Iterator[str]:
    if old == new and type(old) is type(new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}, key=str):
            yield from _within(f"{at}.{key}", old.get(key, _NONE), new.get(key, _NONE))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        # The two sides, or a list in one of the files.
        names = SIDES if "." not in at and len(old) == len(SIDES) else range(len(old))
        for name, one, other in zip(names, old, new, strict=True):
            yield from _within(f"{at}.{name}", one, other)
    else:
        values = [repr(value) if value is not _NONE else "none" for value in (old, new)]
        short = max(map(len, values)) <= _LONG
        yield f"{at} ({values[0]}, now {values[1]})" if short else f"{at} has changed"
