"""``report.html``: one self-contained page, readable without a network or a script."""

from __future__ import annotations

from functools import cache

from markupsafe import Markup

from evalharness.metrics import REGISTRY
from evalharness.report import glossary, tables
from evalharness.report import sections as folder
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.report.text import plural
from evalharness.spec.estimate import Estimate
from evalharness.spec.plugins import built_in, offered, reject
from evalharness.spec.result import Result


def render_html(result: Result) -> str:
    """Return the whole report as one HTML document; the same result gives the same bytes."""
    parts = [(s, Markup(s.render(result))) for s in all_sections()]  # noqa: S704
    return template(
        "report.html.j2",
        r=result,
        parts=parts,
        notices=_notices(result),
        warnings=tables.other_warnings(result),
        tally=tables.tally(result),
        tiles=_tiles(result),
        exit_words=glossary.EXIT_CODES.get(result.exit_code, "see the log"),
    )


def _tiles(result: Result) -> list[tuple[str, str, Estimate | None]]:
    """Return the four figures of the banner; one that was not measured says so."""
    return [
        (metric.id, glossary.tile_name(metric.id), tables.find(result, metric.id))
        for metric in REGISTRY.shown("tile")
    ]


def _notices(result: Result) -> str:
    """Return ``2 anomalies, 1 warning``, or nothing."""
    found = []
    if result.anomalies:
        n = len(result.anomalies)
        found.append(f"{n} anomaly" if n == 1 else f"{n} anomalies")
    if warnings := tables.other_warnings(result):
        found.append(plural(len(warnings), "warning"))
    return ", ".join(found)


@cache
def all_sections() -> tuple[Section, ...]:
    """Every section, in the order of the page."""
    found = [module.SECTION for module in built_in(folder)]
    for name, section in offered("sections", Section):
        if any(section.id == known.id for known in found):
            reject("sections", name, f"the id {section.id!r} is taken")
        else:
            found.append(section)
    return tuple(sorted(found, key=lambda s: s.place))
