"""``report.html``: one self-contained page, readable without a network or a script."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup

from evalharness.errors import plural
from evalharness.metrics import REGISTRY
from evalharness.report import estimates, gate_rows, glossary
from evalharness.report import sections as folder
from evalharness.report.after_fail import next_step
from evalharness.report.safe_text import visible
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.estimate import Estimate
from evalharness.spec.plugins import built_in, offered, reject
from evalharness.spec.result import Result


def render_html(result: Result, run: Path | None = None) -> str:
    """Return the whole report as one HTML document; the same result gives the same bytes.

    ``run`` is where it lies, for the commands that it names.
    """
    parts = [(placed.section, _body(placed, result)) for placed in all_sections()]
    return template(
        "report.html.j2",
        r=result,
        parts=parts,
        notices=_notices(result),
        warnings=gate_rows.other_warnings(result),
        tally=gate_rows.tally(result),
        step=next_step(result, run),
        tiles=_tiles(result),
        exit_words=glossary.EXIT_CODES.get(result.exit_code, "see the log"),
    )


def _tiles(result: Result) -> list[tuple[str, str, Estimate | None]]:
    """Return the four figures of the banner; one that was not measured says so."""
    return [
        (metric.id, glossary.tile_name(metric.id), estimates.find(result, metric.id))
        for metric in REGISTRY.shown("tile")
    ]


def _notices(result: Result) -> str:
    """Return ``2 anomalies, 1 warning``, or nothing."""
    found = []
    if result.anomalies:
        n = len(result.anomalies)
        found.append(f"{n} anomaly" if n == 1 else f"{n} anomalies")
    if warnings := gate_rows.other_warnings(result):
        found.append(plural(len(warnings), "warning"))
    return ", ".join(found)


@dataclass(frozen=True)
class Placed:
    """A section of the page; ``offered_as`` is the name that another package offers it by."""

    section: Section
    offered_as: str | None = None
    group: str = "sections"  # the entry-point group it came by


@cache
def all_sections() -> tuple[Placed, ...]:
    """Every section, in the order of the page."""
    found = [Placed(module.SECTION) for module in built_in(folder)]
    others = [("sections", name, one) for name, one in offered("sections", Section)]
    for name, probe in offered("probes", object):
        section = getattr(probe, "section", None)
        others += [("probes", name, section)] if isinstance(section, Section) else []
    for group, name, section in others:
        if any(section.id == known.section.id for known in found):
            reject(group, name, f"the id {section.id!r} is taken")
        else:
            found.append(Placed(section, name, group))
    return tuple(sorted(found, key=lambda placed: placed.section.place))


def _body(placed: Placed, result: Result) -> Markup:
    """Return a section as HTML, or nothing; one of another package that fails says so instead."""
    if placed.offered_as is None:
        return Markup(placed.section.render(result))  # noqa: S704
    try:
        html = placed.section.render(result)
        if not isinstance(html, str):
            raise TypeError(f"render must return HTML as a str (got {type(html).__name__})")
    except Exception as error:  # whatever the package raises
        why = f"{type(error).__name__}: {error}"
        reject(placed.group, placed.offered_as, why)
        said = Markup('<p class="missing">{} could not be rendered: {}</p>\n')
        return said.format(visible(placed.offered_as), visible(why))
    return Markup(html)  # noqa: S704
