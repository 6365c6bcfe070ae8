"""Which of a run's scopes a gate's globs mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase, translate
from functools import lru_cache

from evalharness.spec.estimate import Scope


def matching(globs: Mapping[str, str], scopes: Sequence[Scope]) -> list[Scope]:
    """The scopes that ``globs`` select, in the order given.

    A scope matches when it has every key of ``globs`` and each value matches. Of those, only the
    ones with the fewest keys count: a gate without a scope is decided over everything where that
    exists, and on every scope there is (each task, each layer) where it does not.
    """
    hits = [scope for scope in scopes if _matches(globs, scope)]
    fewest = min((len(scope) for scope in hits), default=0)
    return [scope for scope in hits if len(scope) == fewest]


def covers(globs: Mapping[str, str], scope: Mapping[str, str]) -> bool:
    """True when ``scope`` has every key of ``globs`` and each value matches."""
    return _matches(globs, scope)


def label(scope: Mapping[str, str]) -> str:
    """``task=arc_easy, metric=acc``; empty over everything."""
    return ", ".join(f"{key}={value}" for key, value in scope.items())


def _matches(globs: Mapping[str, str], scope: Mapping[str, str]) -> bool:
    return all(key in scope and _glob(key, glob, scope[key]) for key, glob in globs.items())


def _glob(key: str, glob: str, value: str) -> bool:
    if key != "layer" or glob == "*":
        return fnmatchcase(value, glob)
    return _dotted(glob).fullmatch(value) is not None


@lru_cache(maxsize=256)
def _dotted(glob: str) -> re.Pattern[str]:
    """A glob over dotted names in which only ``**`` crosses dots.

    So ``model.layers.*`` is every block and none of the modules in them, and ``layers.1`` is
    never ``layers.10``.
    """
    parts = re.split(r"(\*\*|\*|\?)", glob)
    special = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return re.compile("".join(special.get(part) or _plain(part) for part in parts))


def _plain(part: str) -> str:
    # [0-9] classes are left to fnmatch; its result is wrapped as (?s:…)\Z.
    return translate(part).removeprefix("(?s:").removesuffix(r")\Z")
