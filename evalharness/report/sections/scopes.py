"""Which kinds of text differ: key metrics by corpus and slice."""

from __future__ import annotations

from evalharness.report import tables
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result


def render(r: Result) -> str:
    """Which kinds of text differ: key metrics by corpus and slice."""
    table = tables.scope_table(r)
    return template("sections/scopes.html.j2", table=table) if table else ""


SECTION = Section(
    "scopes", "By corpus and slice", render, place=40, missing="Not measured by corpus or slice."
)
