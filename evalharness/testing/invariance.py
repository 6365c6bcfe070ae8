"""What must hold of every metric, whatever it measures.

Each check raises `AssertionError` with the metric, its scope and what was found. ``make`` gives the
records; a metric of records of its own needs a ``make`` that adds them to those of `synthetic`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import pyarrow as pa

from evalharness.metrics import REGISTRY, Estimates, Evidence, Metric
from evalharness.run.directory import InMemory
from evalharness.run.manifest import Manifest
from evalharness.spec.estimate import Estimate
from evalharness.testing.records import MANIFEST, Arrow, Tables, estimates, swapped, synthetic

Make = Callable[..., Tables]
Found = dict[str, Estimate]

_UNSEEN = ("Tango", "of a rate", "bounded score")  # intervals of what may be among the unseen
BY_DOCUMENT = ("tokens", "documents", "layers", "routing")  # records that name a document


def check_metric(metric: Metric | str, make: Make = synthetic) -> None:
    """Hold ``metric`` to everything that it declares, and to what holds of all.

    Parameters
    ----------
    metric : the metric, or the id of one that is registered.
    make : called with ``documents``, ``seed`` and ``damage`` as `synthetic` is.

    """
    found = REGISTRY[metric] if isinstance(metric, str) else metric
    for check in (
        check_measured,
        check_identity,
        check_swap,
        check_order,
        check_nan,
        check_one_document,
    ):
        check(found, make)


def check_measured(metric: Metric, make: Make = synthetic) -> None:
    """It has a scope on these records, and a value in it: else nothing below is checked."""
    found, _ = _plain(metric, make)
    assert found, f"{metric.id}: no record of {metric.records} feeds it"
    assert any(e.value is not None for e in found.values()), f"{metric.id}: has no value"


def check_identity(metric: Metric, make: Make = synthetic) -> None:
    """A model against itself gives the metric's identity, exactly."""
    if metric.identity is None:
        return
    for scope, estimate in _values(metric, make(damage=0.0)).items():
        said = f"{metric.id} {scope}: a model against itself"
        assert estimate.value == metric.identity, f"{said} gives {estimate.value}"
        # An interval of a share keeps its width: no event in n is not proof of none.
        if estimate.low is not None and not (metric.rate or metric.share):
            ends = (estimate.low, estimate.high)
            exact = ends == (metric.identity, metric.identity)
            allows = any(word in estimate.method for word in _UNSEEN)
            assert exact or allows, f"{said} has the interval {ends}"


def check_swap(metric: Metric, make: Make = synthetic) -> None:
    """Swapping the sides changes the sign of an odd metric, and nothing of an even one."""
    if metric.symmetric is None:
        return
    sign = -1 if metric.symmetric == "odd" else 1
    other = _values(metric, swapped(make()))
    for scope, estimate in _plain(metric, make)[0].items():
        back = other[scope].value
        assert _near(back, estimate.value and sign * estimate.value), (
            f"{metric.id} {scope}: {estimate.value} becomes {back} when the sides are swapped, and "
            f"it is declared {metric.symmetric}"
        )


def check_order(metric: Metric, make: Make = synthetic) -> None:
    """The order of documents changes nothing: they are a set of clusters."""
    tables = make()
    last = len(tables["documents"]) - 1
    moved = {name: frame.copy() for name, frame in tables.items()}
    for name in moved:
        if name in BY_DOCUMENT or "doc" in moved[name]:
            moved[name]["doc"] = last - moved[name]["doc"]
            moved[name] = moved[name].sort_values("doc", kind="stable")
    other = _values(metric, moved)
    for scope, estimate in _plain(metric, make)[0].items():
        for end in ("value", "low", "high"):
            a, b = getattr(estimate, end), getattr(other[scope], end)
            # Resampled ends come from the same seed over another order.
            resampled = "bootstrap" in estimate.method and end != "value"
            assert _near(a, b, 0.15 if resampled else 1e-9), (
                f"{metric.id} {scope}: its {end} depends on the order of documents ({a}, {b})"
            )


def check_nan(metric: Metric, make: Make = synthetic) -> None:
    """A NaN in what it reads gives null with a reason, in what it does not read nothing."""
    plain, read = _plain(metric, make)
    tables = make()
    if metric.records not in tables:
        return
    kinds = tables[metric.records].dtypes
    # Whatever is in a column that was never asked for, nothing can come of it.
    floats = (str(name) for name, kind in kinds.items() if kind == np.float64)
    for column in (name for name in floats if (metric.records, name) in read):
        broken = {name: frame.copy() for name, frame in tables.items()}
        broken[metric.records].loc[broken[metric.records].index[0], column] = np.nan
        for scope, estimate in _values(metric, broken).items():
            said = f"{metric.id} {scope}: with a NaN in {metric.records}.{column}"
            if estimate.value is None:
                assert estimate.reason, f"{said} it is null without a reason"
                assert estimate.low is estimate.high is None, f"{said} it has an interval"
            else:
                assert math.isfinite(estimate.value), f"{said} it is {estimate.value}"
                before = plain[scope].value
                assert _near(before, estimate.value), f"{said} {before} becomes {estimate.value}"


def check_one_document(metric: Metric, make: Make = synthetic) -> None:
    """One document gives no interval, and hence no PASS."""
    if metric.deterministic:
        return
    tables = make(documents=1)
    for scope, estimate in _values(metric, tables).items():
        if "task" in scope or "group" in scope or metric.records == "timings" or not estimate.n:
            continue  # clusters that are no documents
        said = f"{metric.id} {scope}: one document"
        assert estimate.low is estimate.high is None, f"{said} gives an interval"
        assert estimate.reason, f"{said} gives no interval, and no reason"


def _values(metric: Metric, tables: Tables) -> Found:
    found = estimates(tables)
    return {str(s): found.estimate(metric.id, s, 0.95) for s in metric.scopes(found.evidence)}


@lru_cache(maxsize=1)  # a metric's checks come one after the other
def _plain(metric: Metric, make: Make) -> tuple[Found, frozenset[tuple[str, str]]]:
    """Its estimates on records as they are, and the columns that were read for them."""
    run = _Watched(MANIFEST, Arrow(make()))
    found = Estimates(Evidence(run))
    values = {str(s): found.estimate(metric.id, s, 0.95) for s in metric.scopes(found.evidence)}
    return values, frozenset(run.read)


def columns_read(metric: Metric, make: Make = synthetic) -> frozenset[tuple[str, str]]:
    """The columns that are read to estimate ``metric``: the kind of records, and the name."""
    return _plain(metric, make)[1]


class _Watched(InMemory):
    """Records that know which of their columns were read."""

    def __init__(self, manifest: Manifest, tables: Mapping[str, pa.Table]) -> None:
        super().__init__(manifest, tables)
        self.read: set[tuple[str, str]] = set()

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """All rows of one kind of record."""
        found = super().table(name, columns)
        self.read |= {(name, column) for column in found.column_names}
        return found


def _near(a: float | None, b: float | None, relative: float = 1e-9) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=relative, abs_tol=1e-9)
