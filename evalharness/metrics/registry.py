"""What a metric is, and the table of all of them.

A metric is a function from records to an interval, with what a gate and a reader need to know about
it. Adding one is adding a function with `@metric(...)` in a file of its family; other packages
register theirs through the entry point group ``evalharness.metrics``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from evalharness.stats import Interval

if TYPE_CHECKING:
    from evalharness.metrics.evidence import Evidence

Scope = dict[str, str]


@dataclass(frozen=True)
class Measured:
    """An interval, and in words where it is worst (a token, item or module), if that is known."""

    interval: Interval
    worst: str | None = None


class Compute(Protocol):
    """Estimate over ``scope`` at two-sided ``confidence``."""

    def __call__(self, evidence: Evidence, scope: Scope, confidence: float) -> Measured: ...


@dataclass(frozen=True)
class Metric:
    """A registered quantity."""

    id: str
    name: str  # in plain words
    unit: str
    direction: Literal["lower", "higher", "none"]  # which way is better
    source: str  # formula or paper
    difference: bool  # a shift: candidate − reference, 0 when nothing changed
    identity: float | None  # its value for a model against itself; None: depends on the model
    symmetric: Literal["even", "odd"] | None  # under swapping the sides; None: neither
    shift_invariant: bool  # unchanged when a constant is added to every logit of a row
    deterministic: bool  # counted, not sampled: no interval is owed
    scope_keys: tuple[str, ...]
    records: str  # the records it reads
    scopes: Callable[[Evidence], list[Scope]]
    compute: Compute


REGISTRY: dict[str, Metric] = {}

_ID = re.compile(r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")


def metric(
    id: str,
    name: str,
    *,
    unit: str,
    direction: Literal["lower", "higher", "none"],
    source: str,
    scopes: Callable[[Evidence], list[Scope]],
    scope_keys: tuple[str, ...],
    records: str,
    identity: float | None,
    symmetric: Literal["even", "odd"] | None = None,
    difference: bool = False,
    shift_invariant: bool = True,
    deterministic: bool = False,
) -> Callable[[Compute], Compute]:
    """Register the decorated function as metric ``id``."""

    def register(compute: Compute) -> Compute:
        if not _ID.match(id) or id in REGISTRY:
            raise ValueError(f"metric id {id!r} is malformed or registered twice")
        if difference and identity != 0:
            raise ValueError(f"{id}: a difference is 0 for a model against itself")
        REGISTRY[id] = Metric(
            id, name, unit, direction, source, difference, identity, symmetric, shift_invariant,
            deterministic, scope_keys, records, scopes, compute,
        )  # fmt: skip
        return compute

    return register
