"""The gates table: what was decided, on what evidence."""

from __future__ import annotations

from evalharness.report import tables
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result


def render(r: Result) -> str:
    """The gates table: what was decided, on what evidence."""
    rows, folded = tables.fold(tables.gate_rows(r))
    waivers = tables.waivers(r)
    if not rows:
        return ""
    return template("sections/gates.html.j2", rows=rows, folded=folded, waivers=waivers)


SECTION = Section(
    "gates",
    "Gates",
    render,
    place=10,
    missing="No gate was applied: nothing was decided, so nothing passed.",
)
