"""The environment, the fingerprints and the command that repeats the run."""

from __future__ import annotations

from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result


def render(r: Result) -> str:
    """The environment, the fingerprints and the command that repeats the run."""
    return template("sections/environment.html.j2", r=r)


SECTION = Section("environment", "Environment and how to repeat it", render, place=140)
