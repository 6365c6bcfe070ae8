"""The distribution of the KL divergence over tokens, on a log axis, with its statistics marked."""

from __future__ import annotations

import math
from collections.abc import Mapping

from evalharness.metrics import REGISTRY
from evalharness.report import numbers
from evalharness.report.charts.svg import (
    CANDIDATE,
    FONT_PX,
    INK,
    WIDTH,
    add_axes,
    new_figure,
    style,
    to_svg,
)
from evalharness.report.estimates import find
from evalharness.spec.result import Histogram, Result

_CHAR_PX = 0.62 * FONT_PX  # a generous width of one character
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def marks(result: Result) -> dict[str, float]:
    """Return label → value of the KL statistics that the distribution is marked with."""
    found = ((m.mark, find(result, m.id)) for m in REGISTRY.values() if m.mark)
    return {label: e.value for label, e in found if e is not None and e.value is not None}


def histogram(counted: Histogram, marks: Mapping[str, float]) -> str:
    """Draw the distribution of per-token KL on a log axis; ``marks`` are label → value."""
    edges, counts = _filled(counted)
    total = sum(counted.counts) + counted.zeros
    if total == 0 or not counts:
        return ""
    share = [100 * count / total for count in counts]
    marks = {label: x for label, x in marks.items() if x > 0}
    low, high = min([edges[0], *marks.values()]) / 1.3, max([edges[-1], *marks.values()]) * 1.3
    across = WIDTH - 70
    labels = _label_rows(marks, math.log10(low), math.log10(high), across)
    top = 24 + 15 * max((row for *_, row in labels), default=0)
    with style():
        figure = new_figure(WIDTH, top + 232)
        axes = add_axes(figure, 52, top, across, 190)
        axes.set_xscale("log")
        axes.minorticks_off()  # 60 of them take longer to draw than the rest
        axes.set_xlim(low, high)
        axes.stairs(share, edges, fill=True, color=CANDIDATE, alpha=0.3, lw=0)
        axes.stairs(share, edges, color=CANDIDATE, lw=1.3)
        axes.set_ylim(0, max(share) * 1.04)
        axes.set_xlabel("KL(reference ‖ candidate) of a token, nats (log scale)")
        axes.set_ylabel("tokens, %")
        axes.xaxis.set_major_formatter(_power_of_ten)
        axes.grid(axis="x", visible=False)
        for text, x, centre, row in labels:
            axes.axvline(x, color=INK, lw=1, ls=(0, (4, 2)))
            axes.annotate(
                text,
                (centre / across, 1),
                xytext=(0, 5 + 15 * row),
                xycoords="axes fraction",
                textcoords="offset points",
                ha="center",
            )
        return to_svg(
            figure,
            "kl",
            "Distribution of the KL divergence over tokens",
            "; ".join(text for text, *_ in labels),
        )


def _label_rows(
    marks: Mapping[str, float], left: float, right: float, across: float
) -> list[tuple[str, float, float, int]]:
    """Place labels above a log axis in as many rows as keep them apart: text, x, centre, row."""
    ends: list[float] = []  # right end of the last label of each row, pixels
    placed = []
    for label, x in sorted(marks.items(), key=lambda mark: mark[1]):
        text = f"{label} {numbers.figures(x)}"
        half = len(text) * _CHAR_PX / 2
        centre = (math.log10(x) - left) / (right - left) * across
        centre = min(max(centre, half), across - half)
        row = next((k for k, end in enumerate(ends) if centre - half > end + 6), len(ends))
        ends[row : row + 1] = [centre + half]
        placed.append((text, x, centre, row))
    return placed


def _power_of_ten(x: float, _: float | None = None) -> str:
    """Label a decade, in text that needs no typesetting: ``10⁻³``."""
    exponent = str(round(math.log10(x)))
    return "1" if exponent == "0" else "10" + exponent.translate(_SUPERSCRIPTS)


def _filled(histogram: Histogram) -> tuple[list[float], list[int]]:
    """Return edges and counts without the empty bins at both ends."""
    filled = [k for k, count in enumerate(histogram.counts) if count]
    if not filled:
        return [], []
    first, last = filled[0], filled[-1] + 1
    return histogram.edges[first : last + 1], histogram.counts[first:last]
