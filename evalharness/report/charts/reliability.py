"""Reliability diagrams: accuracy against confidence on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalharness.metrics.calibration import side_id
from evalharness.report.charts.svg import (
    CANDIDATE,
    INK,
    MUTED,
    PAPER,
    REFERENCE,
    WIDTH,
    add_axes,
    new_figure,
    style,
    to_svg,
)
from evalharness.report.estimates import find
from evalharness.report.safe_text import visible
from evalharness.spec.estimate import Estimate, Scope
from evalharness.spec.result import NEXT_TOKEN, ReliabilityBin, Result

_SIDES = {"reference": (REFERENCE, "o"), "candidate": (CANDIDATE, "s")}

_COUNTS = 0.16  # the highest bar of counts, as a share of the panel


@dataclass(frozen=True)
class Reliability:
    """The reliability bins of both sides in one scope."""

    name: str
    sides: dict[str, list[ReliabilityBin]]
    errors: dict[str, Estimate]  # side → its calibration error


def by_scope(result: Result) -> list[Reliability]:
    """Return the scopes with bins, each side titled with its calibration error."""
    found = []
    for name, sides in result.figures.reliability.items():
        scope: Scope = {} if name == NEXT_TOKEN else {"task": name}
        errors = {side: find(result, side_id(side), scope) for side in sides}
        known = {side: e for side, e in errors.items() if e is not None}
        found.append(Reliability(visible(name), sides, known))
    return found


def diagrams(sides: Mapping[str, Sequence[ReliabilityBin]], key: str, name: str) -> str:
    """Draw the reliability diagrams of both sides with the bins' counts, and both gaps together."""
    drawn = {side: bins for side, bins in sides.items() if bins}
    if not drawn:
        return ""
    panel, gap, left = 290, 66, 52
    with style():
        figure = new_figure(WIDTH, 362)
        last = add_axes(figure, left + 2 * (panel + gap) + 14, 28, panel, panel)
        last.axhline(0, color=MUTED, lw=1, ls=(0, (4, 3)))
        for column, (side, bins) in enumerate(drawn.items()):
            colour, marker = _SIDES[side]
            line: dict[str, Any] = {
                "color": colour,
                "marker": marker,
                "ms": 5,
                "lw": 1.3,
                "mec": PAPER,
                "mew": 0.6,
            }
            axes = add_axes(figure, left + column * (panel + gap), 28, panel, panel)
            x, y = [b.confidence for b in bins], [b.accuracy for b in bins]
            most = max(b.n for b in bins)
            counts = [_COUNTS * b.n / most for b in bins]
            axes.bar(x, counts, width=0.026, color=MUTED, alpha=0.3)
            axes.annotate(f"highest bar: n = {most:,}", (0.99, _COUNTS + 0.02), ha="right")
            axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 3)))
            axes.vlines(x, x, y, color=colour, lw=5, alpha=0.25)
            axes.plot(x, y, **line)
            axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
            axes.set_title(side, color=INK)
            last.plot(x, [b - a for a, b in zip(x, y, strict=True)], label=side, **line)
        last.set(xlim=(0, 1), xlabel="confidence", ylabel="accuracy − confidence")
        last.set_title("both: the gap alone", color=INK)
        last.legend(loc="best")
        return to_svg(
            figure,
            key,
            f"Reliability of both sides: {name}",
            "Accuracy against confidence in bins; the dashed diagonal is perfect calibration.",
        )
