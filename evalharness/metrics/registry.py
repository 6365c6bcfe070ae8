"""What a metric is, and the table of all of them.

A metric is a function from records to an interval, with everything that a gate, a plan and a report
ask of it. Every module of this folder may register some with `metric` or `mean_metric`; other
packages offer theirs through the entry-point group ``evalharness.metrics`` (see `spec.plugins`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from evalharness.metrics.clusters import Keys
from evalharness.metrics.evidence import Evidence
from evalharness.metrics.families import FAMILIES, OTHER, Family
from evalharness.metrics.scope_keys import document_keys
from evalharness.run.records import register
from evalharness.spec.estimate import Scope
from evalharness.spec.plugins import offered, reject
from evalharness.stats import Interval, cluster_skew_t
from evalharness.stats.interval import Floats

Totals = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | str
"""Totals and numbers of rows by document, (G,) each, whose ratio is a mean; or why there are none.
"""

_SIZES = frozenset(["ratio", "relative L2", "logits", "bits"])  # never below 0

Place = Literal["summary", "tile", "scopes", "tasks", "candidates", "proposal"]
"""Where a metric stands out: the summaries, the banner of the page, its table by corpus and slice,
its table of tasks, the table of several candidates, the policy that `init` proposes."""


@dataclass(frozen=True)
class Measured:
    """An interval, and in words where it is worst (a token, item or module), if that is known."""

    interval: Interval
    worst: str | None = None


class Compute(Protocol):
    """Estimate over ``scope`` at two-sided ``confidence``."""

    def __call__(self, evidence: Evidence, scope: Scope, confidence: float) -> Measured: ...


@dataclass(frozen=True)
class Spread:
    """What is assumed of a metric while a policy is planned."""

    sd: float  # between documents (or items), in the metric's unit
    value: float | None = None  # where the candidate is expected; None: at its best
    source: str = "default"
    relative: bool = False  # sd is a share of the value, a good candidate's half way to the limit
    parts: tuple[Floats, Floats] | None = field(default=None, repr=False, compare=False)
    """Sums and numbers of rows of an earlier run's documents (G,), which a mean is made of."""
    interval: Interval | None = field(default=None, repr=False, compare=False)
    """An earlier run's, of what is not made of such sums."""

    def within(self, margin: float) -> Spread:
        """What is assumed where the limit is ``margin`` from the best value, 0."""
        if not self.relative:
            return self
        return replace(self, sd=self.sd * margin / 2, value=margin / 2, relative=False)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A quantity that can be estimated, gated and shown.

    Attributes
    ----------
    id : such as ``kl.mean``.
    name, brief : plain names; the brief one where there is little room.
    family : the group that it is shown in.
    unit : such as ``nats/token``; ``1`` for a plain number, ``fraction`` for a share.
    direction : which way is better.
    source : the formula, or a paper.
    scopes : the scopes that a run has it in.
    scope_keys : keys that may narrow it.
    records : the records it reads.
    compute : its estimate in one scope.
    identity : its value for a model against itself; None where that depends on the model.
    difference : whether it is candidate − reference, 0 when nothing changed.
    signed : whether it tells harm from gain, where a divergence only says how much moved.
    symmetric : what swapping the sides does: nothing (even), change the sign (odd), or neither.
    shift_invariant : unchanged when a constant is added to every logit of a row.
    deterministic : counted and not sampled, so that no interval is owed.
    of_processes : its clusters are processes that start afresh, whatever the documents are: no
        number of documents is asked of it, and stopping early does not bear on it.
    totals, of_totals, transform : of means only: what is summed by document, the interval of such
        sums, and how it becomes the metric's.
    keys : of means only: what each cluster of ``totals`` is (`clusters`), so that a baseline's same
        one is found; None where that is not known.
    share : a share of documents, one 0 or 1 each, which a betting sequence can follow.
    grows : whether it can only be larger over the whole vocabulary than over a few tokens and one
        bin for the rest: of a server's log-probabilities it is a lower bound.
    rate : a share of items that is planned for by Clopper and Pearson's bound.
    bounds : the values of ``bound``, one of which a scope names.
    instead : the metric to gate instead, where this one is a maximum: that grows with the sample.
    ungated : why a gate on it would mislead, and what to gate instead.
    min_n : fewest documents or items that a verdict rests on, where a policy does not say: as many
        as its interval takes to err no more than it says where documents are skewed.
    spread : what 4-bit weights do to a small model, on documents of a few hundred tokens; on the
        small side, since only what could never be decided is refused. None: no size is known.
    typical : the interval of so many items of a planning spread, where that is not the interval of
        normal documents' sums.
    shown : where it stands out.
    mark : its label in the chart of its distribution.

    """

    id: str
    name: str
    unit: str
    direction: Literal["lower", "higher", "none"]
    source: str
    scopes: Callable[[Evidence], list[Scope]]
    scope_keys: tuple[str, ...]
    records: str
    compute: Compute
    identity: float | None
    brief: str = ""
    family: Family = OTHER
    difference: bool = False
    signed: bool = False
    symmetric: Literal["even", "odd"] | None = None
    shift_invariant: bool = True
    deterministic: bool = False
    of_processes: bool = False
    totals: Callable[[Evidence, Scope], Totals] | None = None
    of_totals: Callable[..., Interval] = cluster_skew_t
    transform: Callable[[Interval], Interval] = lambda interval: interval
    keys: Callable[[Evidence, Scope], Keys | None] = document_keys
    share: bool = False
    grows: bool = False
    rate: bool = False
    bounds: tuple[str, ...] = ()
    instead: str = ""
    ungated: str = ""
    min_n: int = 20
    spread: Spread | None = None
    typical: Callable[[Spread, int, float], Interval] | None = None
    shown: tuple[Place, ...] = ()
    mark: str = ""

    def __post_init__(self) -> None:
        if not _ID.match(self.id):
            raise ValueError(f"metric id {self.id!r} is malformed: expected words joined by dots")
        if self.min_n < 2:
            raise ValueError(f"{self.id}: min_n must be at least 2 (got {self.min_n})")
        if self.difference and self.identity != 0:
            raise ValueError(f"{self.id}: a difference is 0 for a model against itself")

    @property
    def is_cost(self) -> bool:
        """Whether it measures what compression buys: bytes and time."""
        return self.family.cost

    @property
    def limits(self) -> tuple[float, float]:
        """Between which its value always is: a share in 0 … 1, a ratio or a size above 0."""
        if self.unit == "fraction":
            return (-1.0 if self.difference else 0.0), 1.0
        return (0.0 if self.unit in _SIZES and not self.difference else -math.inf), math.inf

    @property
    def is_maximum(self) -> bool:
        """Whether it grows with the number of tokens looked at, so that no limit means anything."""
        return bool(self.instead)

    @property
    def ideal(self) -> float | None:
        """The best that compression can leave, a model against itself; None for a cost."""
        return None if self.is_cost else self.identity

    @property
    def noise_stays(self) -> bool:
        """Whether its spread stays when the candidate is as good as the reference.

        Only then is there a number of documents that a limit needs: a divergence's spread shrinks
        with it.
        """
        return self.difference or (self.spread is not None and not self.spread.relative)


class Registry(Mapping[str, Metric]):
    """Metrics by id, ours first; those of other packages are loaded when first looked for."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}
        self._complete = False

    def add(self, found: Metric) -> Metric:
        """Register ``found``."""
        if found.id in self._metrics and self._metrics[found.id] is not found:
            raise ValueError(f"metric id {found.id!r} is registered twice")
        self._metrics[found.id] = found
        return found

    def __getitem__(self, id: str) -> Metric:
        return self._all()[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def shown(self, place: Place) -> list[Metric]:
        """The metrics that stand out in ``place``, by family."""
        found = [m for m in self.values() if place in m.shown]
        return sorted(found, key=lambda m: FAMILIES.index(m.family))

    def _all(self) -> dict[str, Metric]:
        if not self._complete:
            self._complete = True
            for group, offer in (("metrics", Metric), ("probes", object)):
                for name, one in offered(group, offer):
                    many = [one] if isinstance(one, Metric) else getattr(one, "metrics", ())
                    try:
                        for kind, schema in _records(one).items():
                            register(kind, schema)
                        for found in many:
                            self.add(found)
                    except ValueError as error:
                        reject(group, name, str(error))
        return self._metrics


def _records(probe: Any) -> dict[str, Any]:
    """The schemas of what a probe records; a metric names the records it reads instead."""
    found = getattr(probe, "records", {})
    return dict(found) if isinstance(found, Mapping) else {}


_ID = re.compile(r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")
REGISTRY = Registry()


def metric(id: str, name: str, **facts: Any) -> Callable[[Compute], Compute]:
    """Register the decorated function as metric ``id``; ``facts`` are those of `Metric`."""

    def register(compute: Compute) -> Compute:
        REGISTRY.add(Metric(id=id, name=name, compute=compute, **facts))
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
    **facts: Any,
) -> Metric:
    """Register a mean over rows: the ratio of two sums over documents, with its interval.

    Means are also what can be watched while documents come in: see `Estimates` and `--stop-early`.

    Parameters
    ----------
    totals : sums and numbers of rows by document, (G,) each; or why there are none.
    worst : in words, where it is worst.
    interval : from (sums, counts, confidence) to an `Interval`.
    transform : from the mean's interval to the metric's, such as an exponential.
    facts : those of `Metric`.

    """

    def compute(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
        found = totals(evidence, scope)
        if isinstance(found, str):
            return Measured(Interval(None, None, None, confidence, 0, 0, "none", reason=found))
        return Measured(transform(interval(*found, confidence)), worst(evidence, scope))

    return REGISTRY.add(
        Metric(
            id=id,
            name=name,
            compute=compute,
            totals=totals,
            of_totals=interval,
            transform=transform,
            **facts,
        )
    )
