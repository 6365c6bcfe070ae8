"""The tokens where the two sides differ most, in context."""

from __future__ import annotations

from typing import Any

from evalharness.report import glossary
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result

MOST_TOKENS = 60


def render(r: Result) -> str:
    """The tokens where the two sides differ most, in context."""
    if not r.worst_tokens:
        return ""
    groups: dict[str, list[Any]] = {}
    for t in r.worst_tokens[:MOST_TOKENS]:
        groups.setdefault(t.by, []).append(t)
    return template("sections/tokens.html.j2", groups=groups, measures=glossary.TOKEN_MEASURES)


SECTION = Section(
    "tokens", "Worst tokens", render, place=120, missing="No worst tokens were recorded."
)
