"""What other packages may add: four entry-point groups, and how what they offer is loaded.

    group                  one entry point offers                      which is then
    evalharness.metrics    a `metrics.Metric`, or a sequence of them   gated, estimated and shown
    evalharness.engines    an `engines.base.Engine`                    `model: {engine: NAME}`
    evalharness.probes     a `probes.Probe`                            `probes: [NAME]`, with keys
    evalharness.sections   a `report.Section`                          on the page of every report

A package says so in its pyproject.toml:

    [project.entry-points."evalharness.metrics"]
    surprise = "my_package.surprise:METRIC"

Ours are found the same way but by folder: every module of `metrics`, `engines`, `probes` and
`report.sections` that defines one. What cannot be loaded is named in a `PluginWarning` and left
out; where a file asks for it by name, that is an input error which says why (`refusal`).
CONTRIBUTING.md has an example of each; `evalharness.testing` checks a metric.
"""

from __future__ import annotations

import pkgutil
import re
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

GROUPS = ("metrics", "engines", "probes", "sections")

T = TypeVar("T")
_broken: dict[tuple[str, str], str] = {}


class PluginWarning(UserWarning):
    """Something that another package offers cannot be used."""


def built_in(package: ModuleType) -> Iterator[ModuleType]:
    """Every module of one of our own folders."""
    for found in pkgutil.iter_modules(package.__path__):
        yield import_module(f"{package.__name__}.{found.name}")


def built_in_names(package: ModuleType, attribute: str) -> list[str]:
    """The modules of one of our own folders that define ``attribute``, none of them imported."""
    defines = re.compile(rf"^{attribute}\b", re.MULTILINE)
    return [
        path.stem
        for folder in package.__path__
        for path in sorted(Path(folder).glob("*.py"))
        if defines.search(path.read_text(encoding="utf-8"))
    ]


def names(group: str) -> list[str]:
    """What other packages offer in ``group``, by name; nothing of it is imported."""
    return [point.name for point in _points(group)]


def offered(group: str, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Load what other packages offer in ``group``; what is broken is warned of and skipped."""
    for point in _points(group):
        try:
            found = point.load()
            many = found if isinstance(found, tuple | list) else [found]
            for one in many:
                if not isinstance(one, kind):
                    article = "an" if kind.__name__[0] in "AEIOU" else "a"
                    raise TypeError(f"must be {article} {kind.__name__} (got {type(one).__name__})")
        except Exception as error:  # whatever the package raises as it is imported
            reject(group, point.name, f"{type(error).__name__}: {error}")
            continue
        yield from ((point.name, one) for one in many)


def reject(group: str, name: str, why: str) -> None:
    """Warn, once, that what is offered as ``name`` is left out."""
    if (group, name) not in _broken:
        _broken[group, name] = why
        text = f"evalharness.{group}: {_by(group, name)} is left out: {why}"
        warnings.warn(text, PluginWarning, stacklevel=2)


def refusal(group: str) -> str:
    """What of ``group`` is left out and why, to end the error about a name that is not known."""
    found = [
        f"{_by(group, n)} could not be loaded ({why})"
        for (g, n), why in _broken.items()
        if g == group
    ]
    return "".join(f" {text}." for text in found)


def _points(group: str) -> list[EntryPoint]:
    return sorted(entry_points(group=f"evalharness.{group}"), key=lambda point: point.name)


def _by(group: str, name: str) -> str:
    point = next(p for p in _points(group) if p.name == name)
    return f"{name!r} of {point.dist.name if point.dist else point.value}"
