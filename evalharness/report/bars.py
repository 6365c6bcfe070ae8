"""Small inline drawings that stand in table cells: intervals against a limit, and the heat map.

Written as SVG by hand: a page holds dozens of them, each cell carries its number as a tooltip,
and every colour is a class of report.css. Only numbers we computed and escaped names go in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from evalharness.report.layer_tables import Grid
from evalharness.report.numbers import number
from evalharness.report.text import short, visible

WIDTH, HEIGHT = 168.0, 30.0
_EDGE = 7.0
HEAT_STEPS = 7


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to the pixels of a bar."""

    low: float
    high: float

    def px(self, value: float) -> float:
        """Return the place of ``value``; what lies outside stands at the edge."""
        inside = WIDTH - 2 * _EDGE
        at = _EDGE + inside * (value - self.low) / (self.high - self.low)
        return min(max(at, 1.5), WIDTH - 1.5)


def axis(values: Sequence[float | None], pad: float = 0.08) -> Axis:
    """Return a scale that holds every value, with room at both ends."""
    known = [v for v in values if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = (high - low) * pad
    if not high - low > abs(high) * 1e-12:
        room = abs(high) * 0.1 or 1.0
    return Axis(low - room, high + room)


def gate_bar(
    value: float | None,
    low: float | None,
    high: float | None,
    limit: float | None,
    side: Literal["max", "min"],
    verdict: str,
    label: str,
) -> Markup:
    """Draw an interval against its limit; the allowed side is shaded and said by an arrow."""
    if value is None or limit is None:
        return Markup('<span class="none">no number to draw</span>')
    scale = axis([value, low, high, limit], pad=0.22)
    at, mid = scale.px(limit), HEIGHT / 2
    left, width = (0.0, at) if side == "max" else (at, WIDTH - at)
    tip = -1 if side == "max" else 1  # the arrow points to the allowed side
    parts = [
        f'<rect class="ok" x="{left:.1f}" y="3" width="{width:.1f}" height="{HEIGHT - 6:.0f}"/>',
        f'<path class="limit" d="M{at:.1f} 1V{HEIGHT - 1:.0f}"/>',
        f'<path class="way" d="M{at:.1f} 3h{7 * tip}m{-3 * tip} -2.5l{3 * tip} 2.5'
        f'l{-3 * tip} 2.5"/>',
        *_interval(scale, value, low, high, mid),
    ]
    return _bar(parts, f"v-{verdict.lower()}", label)


def forest_bar(
    scale: Axis, value: float | None, low: float | None, high: float | None, label: str
) -> Markup:
    """Draw an interval on a scale that the rows of a table share, with zero marked."""
    if value is None:
        return Markup('<span class="none">—</span>')
    mid = HEIGHT / 2
    zero = scale.px(0) if scale.low <= 0 <= scale.high else None
    parts = [] if zero is None else [f'<path class="zero" d="M{zero:.1f} 2V{HEIGHT - 2:.0f}"/>']
    return _bar([*parts, *_interval(scale, value, low, high, mid)], "v-plain", label)


def _interval(
    scale: Axis, value: float, low: float | None, high: float | None, mid: float
) -> list[str]:
    """Return the whisker and the point of an interval; no interval is a hollow point."""
    at = scale.px(value)
    if low is None or high is None:
        return [f'<circle class="hollow" cx="{at:.1f}" cy="{mid:.0f}" r="3.6"/>']
    a, b = scale.px(low), scale.px(high)
    ends = f"M{a:.1f} {mid - 5:.0f}v10M{b:.1f} {mid - 5:.0f}v10"
    return [
        f'<path class="whisker" d="M{a:.1f} {mid:.0f}H{b:.1f}{ends}"/>',
        f'<circle class="point" cx="{at:.1f}" cy="{mid:.0f}" r="3.6"/>',
    ]


def _bar(parts: Sequence[str], css: str, label: str) -> Markup:
    """Wrap the pieces of a bar; the label is what a screen reader says and a pointer shows."""
    text = escape(visible(label))
    return Markup(  # noqa: S704
        f'<svg class="bar {css}" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" '
        f'aria-label="{text}"><title>{text}</title>{"".join(parts)}</svg>'
    )


def heat_map(grid: Grid) -> Markup:
    """Draw block × module type, shaded by the logarithm of the error; the worst cell is framed."""
    columns, rows = len(grid.columns), len(grid.rows)
    cell_w = min(30.0, max(5.0, 960.0 / max(columns, 1)))
    cell_h, left, top = 22.0, 104.0, 4.0
    width = left + columns * cell_w + 8
    height = top + rows * cell_h + 30
    low, high = _log_range([c.value for c in grid.cells])
    out = [
        f'<svg class="heat" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'style="--w:{width:.0f}px" aria-label="{escape(visible(grid.title))}">'
    ]
    for k, name in enumerate(grid.rows):
        y = top + (k + 0.5) * cell_h + 4
        out.append(f'<text x="{left - 8:.0f}" y="{y:.0f}" class="end">{escape(short(name, 15))}')
        out.append("</text>")
    step = next(s for s in (1, 2, 4, 5, 10, 20, 50, 1000) if cell_w * s >= 20)
    for k, name in enumerate(grid.columns):
        if k % step == 0:
            x = left + (k + 0.5) * cell_w
            out.append(f'<text x="{x:.1f}" y="{height - 14:.0f}" class="mid">')
            out.append(f"{escape(short(name, 6))}</text>")
    for cell in grid.cells:
        x, y = left + cell.column * cell_w, top + cell.row * cell_h
        shade = heat_step(cell.value, low, high)
        worst = " worst" if cell.worst else ""
        told = escape(visible(cell.label))
        out.append(
            f'<rect class="h{shade}{worst}" x="{x + 0.75:.1f}" y="{y + 0.75:.1f}" '
            f'width="{cell_w - 1.5:.1f}" height="{cell_h - 1.5:.1f}" rx="2">'
            f"<title>{told}</title></rect>"
        )
    out.append(f'<text x="{left:.0f}" y="{height - 1:.0f}">block</text></svg>')
    return Markup("".join(out))  # noqa: S704


def heat_legend(grid: Grid) -> list[tuple[int, str]]:
    """Return the shades with the least value of each."""
    low, high = _log_range([c.value for c in grid.cells])
    edges = [low + (high - low) * k / HEAT_STEPS for k in range(HEAT_STEPS)]
    return [(k, "≥ " + number(10**e, max(0, 2 - math.floor(e) - 1))) for k, e in enumerate(edges)]


def heat_step(value: float | None, low: float, high: float) -> str:
    """Return the shade of a value: 0 (least) to 6, ``z`` for exactly 0, ``n`` for no number."""
    if value is None:
        return "n"
    if value <= 0:
        return "z"
    share = (math.log10(value) - low) / (high - low)
    return str(min(HEAT_STEPS - 1, max(0, int(share * HEAT_STEPS))))


def _log_range(values: Sequence[float | None]) -> tuple[float, float]:
    """Return the decimal logarithms that the shades span; at least a factor of two."""
    logs = [math.log10(v) for v in values if v is not None and v > 0]
    if not logs:
        return -1.0, 0.0
    low, high = min(logs), max(logs)
    return (low, high) if high - low >= 0.3 else (high - 0.3, high)
