"""Intervals that stand in table cells, drawn against a limit or on a scale that rows share.

Written as SVG by hand: a page holds dozens of them, and every colour is a class of report.css. Only
numbers we computed and escaped names go in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from evalharness.report.safe_text import visible

WIDTH, HEIGHT = 168.0, 30.0
_EDGE = 7.0


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
