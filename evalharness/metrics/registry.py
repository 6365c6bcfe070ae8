"""What a metric is, and the table of all of them.

A metric is a function from records to an interval, with what a gate and a reader need to know about
it. Adding one is adding a function with `@metric(...)` in a file of its family; other packages
register theirs through the entry point group ``evalharness.metrics``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from evalharness.metrics.evidence import Evidence
from evalharness.spec.result import Scope
from evalharness.stats import Interval, cluster_skew_t


@dataclass(frozen=True)
class Measured:
    """An interval, and in words where it is worst (a token, item or module), if that is known."""

    interval: Interval
    worst: str | None = None


# Per-document totals and numbers of rows, (G,) each, of which a mean is the ratio; or why there are
# none.
Totals = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | str


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
    # Means only: what is summed per document, and how the mean's interval becomes the metric's.
    totals: Callable[[Evidence, Scope], Totals] | None = None
    transform: Callable[[Interval], Interval] = lambda interval: interval
    share: bool = False  # a share of documents: one 0 or 1 each, so a bettor can follow it


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
    totals: Callable[[Evidence, Scope], Totals] | None = None,
    transform: Callable[[Interval], Interval] = lambda interval: interval,
    share: bool = False,
) -> Callable[[Compute], Compute]:
    """Register the decorated function as metric ``id``."""

    def register(compute: Compute) -> Compute:
        if not _ID.match(id) or id in REGISTRY:
            raise ValueError(f"metric id {id!r} is malformed or registered twice")
        if difference and identity != 0:
            raise ValueError(f"{id}: a difference is 0 for a model against itself")
        REGISTRY[id] = Metric(
            id,
            name,
            unit,
            direction,
            source,
            difference,
            identity,
            symmetric,
            shift_invariant,
            deterministic,
            scope_keys,
            records,
            scopes,
            compute,
            totals,
            transform,
            share,
        )
        return compute

    return register


def mean_metric(
    id: str,
    name: str,
    totals: Callable[[Evidence, Scope], Totals],
    *,
    worst: Callable[[Evidence, Scope], str | None] = lambda evidence, scope: None,
    interval: Callable[..., Interval] = cluster_skew_t,
    transform: Callable[[Interval], Interval] = lambda found: found,
    **more: Any,
) -> None:
    """Register a mean over rows: the ratio of two sums over documents, with its interval.

    Means are also what can be watched while documents come in: see `Estimates` and `--stop-early`.
    """

    def compute(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
        found = totals(evidence, scope)
        if isinstance(found, str):
            return Measured(Interval(None, None, None, confidence, 0, 0, "none", reason=found))
        return Measured(transform(interval(*found, confidence)), worst(evidence, scope))

    metric(id, name, totals=totals, transform=transform, **more)(compute)
