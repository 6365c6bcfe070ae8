"""A heat map as inline SVG: blocks against module types, or blocks of one model against another.

Every colour is a class of report.css, and each cell carries its number as a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from evalharness.report.numbers import number
from evalharness.report.safe_text import short, visible

HEAT_STEPS = 7


@dataclass(frozen=True)
class Cell:
    """One module of the grid; where several share a place, the worst of them."""

    column: int
    row: int
    value: float | None
    label: str
    worst: bool


@dataclass(frozen=True)
class LayerGrid:
    """Block × module type."""

    title: str
    error: str
    columns: list[str]
    rows: list[str]
    cells: list[Cell]


def heat_map(grid: LayerGrid) -> Markup:
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


def heat_legend(grid: LayerGrid) -> list[tuple[int, str]]:
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
