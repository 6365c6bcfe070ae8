"""What the compression buys: bytes, seconds, and their ratios."""

from __future__ import annotations

from evalharness.report import estimates
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result


def render(r: Result) -> str:
    """What the compression buys: bytes, seconds, and their ratios."""
    groups, cost = estimates.families(r, ("cost",)), r.cost
    if not (groups or cost.seconds or cost.memory or cost.memory_by_side or cost.speed_by_side):
        return ""
    return template("sections/cost.html.j2", groups=groups, cost=cost)


SECTION = Section("cost", "Cost", render, place=130, missing="Cost was not measured.")
