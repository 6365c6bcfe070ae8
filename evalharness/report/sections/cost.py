"""What the compression buys: bytes, seconds, and their ratios."""

from __future__ import annotations

from evalharness.report import tables
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result


def render(r: Result) -> str:
    """What the compression buys: bytes, seconds, and their ratios."""
    groups = tables.families(r, ("cost",))
    if not groups and not r.cost.seconds and not r.cost.memory:
        return ""
    return template(
        "sections/cost.html.j2",
        groups=groups,
        reason=r.cost.reason,
        seconds=tables.by_side(r.cost.seconds),
        memory=tables.by_side(r.cost.memory),
    )


SECTION = Section("cost", "Cost", render, place=130, missing="Cost was not measured.")
