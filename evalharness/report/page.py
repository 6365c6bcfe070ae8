"""``report.page``: one self-contained page, readable without a network or a script."""

from __future__ import annotations

from markupsafe import Markup

from evalharness.report import glossary as words
from evalharness.report import tables as view
from evalharness.report.sections import registry as sections
from evalharness.report.sections.registry import Section
from evalharness.report.text import plural
from evalharness.spec.result import Estimate, Result


def render_html(result: Result) -> str:
    """Return the whole report as one HTML document; the same result gives the same bytes."""
    sections.load_plugins()
    parts = [(s, Markup(s.render(result))) for s in sections.SECTIONS]  # noqa: S704
    return sections.template(
        "report.html.j2",
        r=result,
        parts=parts,
        notices=_notices(result),
        tally=view.tally(result),
        tiles=_tiles(result),
        exit_words=words.EXIT_CODES.get(result.exit_code, "see the log"),
    )


def _tiles(result: Result) -> list[tuple[str, str, Estimate | None]]:
    """Return the four figures of the banner; one that was not measured says so."""
    return [(metric, words.tile_name(metric), view.find(result, metric)) for metric in view.TILES]


def _notices(result: Result) -> str:
    """Return ``2 anomalies, 1 warning``, or nothing."""
    found = []
    if result.anomalies:
        n = len(result.anomalies)
        found.append(f"{n} anomaly" if n == 1 else f"{n} anomalies")
    if result.warnings:
        found.append(plural(len(result.warnings), "warning"))
    return ", ".join(found)


__all__ = ["Section", "render_html"]
