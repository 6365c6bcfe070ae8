"""Which kinds of text differ: key metrics by corpus and slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evalharness.metrics import REGISTRY
from evalharness.report import numbers
from evalharness.report.glossary import scope_sort, scope_words
from evalharness.report.interval_bars import Axis, axis, forest_bar
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import Result


@dataclass(frozen=True)
class ScopeTable:
    """One row a corpus or slice, one column a metric, on scales shared by the rows."""

    metrics: list[str]
    rows: list[tuple[str, list[tuple[Estimate | None, Markup]]]]


def scope_table(result: Result) -> ScopeTable | None:
    """Arrange the key metrics by corpus and slice, with intervals on shared scales."""
    columns = [metric.id for metric in REGISTRY.shown("scopes")]
    found = {
        (e.id, tuple(sorted(e.scope.items()))): e
        for e in result.metrics
        if e.id in columns and set(e.scope) <= {"corpus", "slice"}
    }
    keys = sorted({scope for _, scope in found}, key=lambda scope: scope_sort(dict(scope)))
    ids = [m for m in columns if any(metric == m for metric, _ in found)]
    if not any(keys):
        return None
    scales = {m: _shared(m, [e for (i, _), e in found.items() if i == m]) for m in ids}
    rows = []
    for scope in keys:
        cells: list[tuple[Estimate | None, Markup]] = []
        for metric in ids:
            e = found.get((metric, scope))
            bar = (
                Markup("")
                if e is None
                else forest_bar(scales[metric], e.value, e.low, e.high, str(numbers.estimate(e)))
            )
            cells.append((e, bar))
        rows.append((scope_words(dict(scope)), cells))
    return ScopeTable(ids, rows)


def _shared(metric: str, estimates: Sequence[Estimate]) -> Axis:
    values = [x for e in estimates for x in (e.value, e.low, e.high)]
    return axis([*values, 0.0] if numbers.is_shift(metric) else values)


def render(r: Result) -> str:
    """Which kinds of text differ: key metrics by corpus and slice."""
    table = scope_table(r)
    return template("sections/scopes.html.j2", table=table) if table else ""


SECTION = Section(
    "scopes", "By corpus and slice", render, place=40, missing="Not measured by corpus or slice."
)
