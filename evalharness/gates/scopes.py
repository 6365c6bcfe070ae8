"""Which of a run's scopes a gate's globs mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase, translate
from functools import lru_cache

from evalharness.metrics import Estimates
from evalharness.metrics.task_groups import EVERY, outermost
from evalharness.spec.estimate import Scope


def matching(
    globs: Mapping[str, str],
    scopes: Sequence[Scope],
    leaves: Callable[[Scope], frozenset[str]] | None = None,
) -> list[Scope]:
    """The scopes that ``globs`` select, in the order given.

    A scope matches when it has every key of ``globs`` and each value matches. Of those, only the
    ones with the fewest keys count: a gate without a scope is decided over everything where that
    exists, and on every scope there is (each task, each layer) where it does not. Tasks are then
    those that the suite names: a group stands for its tasks, which are decided one by one by a gate
    that names them.

    Parameters
    ----------
    globs, scopes : of the gate, and of the metric in this run.
    leaves : the tasks within a scope, where it may be a group of tasks.

    """
    hits = [scope for scope in scopes if _matches(globs, scope)]
    fewest = min((len(scope) for scope in hits), default=0)
    broadest = [scope for scope in hits if len(scope) == fewest]
    if "task" in globs or "group" in globs:
        return broadest
    once = [scope for scope in broadest if scope.get("group") != EVERY]
    if leaves is None or not any("group" in scope for scope in once):
        return once
    kept: list[int] = []
    for own in _by_metric(once).values():
        kept += [own[k] for k in outermost([leaves(once[k]) for k in own])]
    return [once[k] for k in sorted(kept)]


def chosen(estimates: Estimates, metric: str, globs: Mapping[str, str]) -> list[Scope]:
    """The scopes of ``metric`` in a run that ``globs`` select."""
    return matching(globs, estimates.scopes(metric), estimates.leaves)


def covers(globs: Mapping[str, str], scope: Mapping[str, str]) -> bool:
    """True when ``scope`` has every key of ``globs`` and each value matches."""
    return _matches(globs, scope)


def label(scope: Mapping[str, str]) -> str:
    """``task=arc_easy, metric=acc``; empty over everything."""
    return ", ".join(f"{key}={value}" for key, value in scope.items())


def _by_metric(scopes: Sequence[Scope]) -> dict[str | None, list[int]]:
    """Places of the scopes of each lm-eval metric."""
    found: dict[str | None, list[int]] = {}
    for k, scope in enumerate(scopes):
        found.setdefault(scope.get("metric"), []).append(k)
    return found


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
