"""The sensitivity ranking with its controls, then the repair with both verdicts."""

from __future__ import annotations

from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result


def render(r: Result) -> str:
    """Ranking and repair, where a bisect was run."""
    if r.sensitivity is None and r.repair is None:
        return ""
    return template("sections/repair.html.j2", s=r.sensitivity, repair=r.repair)


SECTION = Section(
    "repair",
    "Sensitivity and repair",
    render,
    place=90,
    missing="Not measured: run `evalharness bisect RUN`.",
)
