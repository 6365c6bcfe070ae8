"""Short definitions."""

from __future__ import annotations

from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result


def render(r: Result) -> str:
    """Short definitions."""
    return template("sections/reading.html.j2", r=r)


SECTION = Section("reading", "How to read this", render, place=150)
