"""Reliability diagrams of both sides."""

from __future__ import annotations

from markupsafe import Markup

from evalharness.report.charts import reliability
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result

MOST_RELIABILITY = 3


def render(r: Result) -> str:
    """Reliability diagrams of both sides."""
    drawn = []
    found = reliability.by_scope(r)
    for k, item in enumerate(found[:MOST_RELIABILITY]):
        svg = reliability.diagrams(item.sides, f"reliability-{k}", item.name)
        if svg:
            drawn.append((item, Markup(svg)))  # noqa: S704
    more = [item.name for item in found[MOST_RELIABILITY:]]
    return template("sections/calibration.html.j2", drawn=drawn, more=more) if drawn else ""


SECTION = Section(
    "calibration", "Calibration", render, place=100, missing="Calibration was not measured."
)
