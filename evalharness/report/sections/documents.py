"""NLL shift of every document, by corpus."""

from __future__ import annotations

from markupsafe import Markup

from evalharness.report.charts import documents
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result

MOST_DOCUMENTS = 8


def render(r: Result) -> str:
    """NLL shift of every document, by corpus."""
    svg = documents.strip(documents.by_corpus(r))
    rows, without = documents.most_shifted(r)
    if not r.figures.nll_by_document:
        return ""
    return template(
        "sections/documents.html.j2",
        svg=Markup(svg),  # noqa: S704
        rows=rows[:MOST_DOCUMENTS],
        without=without,
    )


SECTION = Section(
    "documents", "Documents", render, place=60, missing="The loss by document was not measured."
)
