"""Both sides with the compression measured from the loaded models."""

from __future__ import annotations

from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result


def render(r: Result) -> str:
    """Both sides with the compression measured from the loaded models."""
    return template("sections/compared.html.j2", r=r, c=r.compared)


SECTION = Section("compared", "What was compared", render, place=20)
