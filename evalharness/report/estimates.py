"""Estimates of a result looked up: by id and scope, those of a summary, those of a family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evalharness.metrics import FAMILIES, REGISTRY, Family
from evalharness.metrics.scopes import of_tasks
from evalharness.report.glossary import family, scope_sort
from evalharness.spec.estimate import Estimate, Scope
from evalharness.spec.result import Result


def find(result: Result, metric: str, scope: Scope | None = None) -> Estimate | None:
    """Return the estimate of ``metric`` in exactly ``scope`` (default: everything)."""
    wanted = scope or {}
    return next((e for e in result.metrics if e.id == metric and e.scope == wanted), None)


def key_estimates(result: Result) -> list[Estimate]:
    """Return the estimates over everything that a summary shows, in its order."""
    found = (find(result, metric.id) for metric in REGISTRY.shown("summary"))
    return [e for e in found if e is not None]


@dataclass(frozen=True)
class FamilyRows:
    """The estimates of one family: over everything, and within scopes."""

    family: Family
    overall: list[Estimate]
    scoped: list[Estimate]


def families(result: Result, keys: Sequence[str]) -> list[FamilyRows]:
    """Return the families of ``keys`` that have estimates, in the order of the glossary.

    What is scoped to a task, or to a group of them, stands with the tasks, and is left out here.
    """
    groups = []
    for group in FAMILIES:
        rows = [e for e in result.metrics if family(e.id) is group and not of_tasks(e.scope)]
        if group.key in keys and rows:
            overall = [e for e in rows if not e.scope]
            scoped = sorted((e for e in rows if e.scope), key=lambda e: (e.id, scope_sort(e.scope)))
            groups.append(FamilyRows(group, overall, scoped))
    return groups
