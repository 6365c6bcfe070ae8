"""The charts of the report, drawn with matplotlib and returned as inline SVG.

Each function takes parts of a Result and returns ``""`` when there is nothing to draw.
matplotlib is imported inside them: the terminal summary must not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalharness.report import numbers
from evalharness.report.svg import (
    ACCENT,
    BAD,
    CANDIDATE,
    FONT_PX,
    INK,
    MUTED,
    PAPER,
    REFERENCE,
    add_axes,
    new_figure,
    style,
    to_svg,
)
from evalharness.report.text import short
from evalharness.spec.result import Histogram, ReliabilityBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evalharness.report.chart_data import DocumentRow
    from evalharness.report.layer_tables import BlockCurve

WIDTH = 1080  # CSS pixels; the page scrolls a chart sideways where it is narrower
_CHAR_PX = 0.62 * FONT_PX  # a generous width of one character
_MOST_POINTS = 1500
_POINT_SIZES = ((0, 200, 3.2), (200, 600, 4.6), (600, math.inf, 6.2))  # tokens, diameter
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def kl_histogram(histogram: Histogram, marks: Mapping[str, float]) -> str:
    """Draw the distribution of per-token KL on a log axis; ``marks`` are label → value."""
    edges, counts = _filled(histogram)
    total = sum(histogram.counts) + histogram.zeros
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


_SIDES = {"reference": (REFERENCE, "o"), "candidate": (CANDIDATE, "s")}

_COUNTS = 0.16  # the highest bar of counts, as a share of the panel


def reliability(sides: Mapping[str, Sequence[ReliabilityBin]], key: str, name: str) -> str:
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


_SERIES = {  # error kind → marker, colour, line
    "total": ("o", INK, "-"),
    "own": ("s", CANDIDATE, "-"),
    "own_on_clean": ("D", ACCENT, "--"),
    "inherited": ("^", REFERENCE, "--"),
}


def layer_curves(curves: Sequence[BlockCurve], labels: Sequence[str]) -> str:
    """Draw each error of the blocks over depth, its interval as whiskers, and its SQNR below.

    ``labels`` name the blocks along the depth; a curve's points refer to them by place.
    """
    if not any(curve.places for curve in curves):
        return ""
    n = len(labels)
    size = 5.0 if n <= 48 else 3.2
    with style():
        figure = new_figure(WIDTH, 440)
        upper = add_axes(figure, 60, 36, WIDTH - 78, 218)
        lower = add_axes(figure, 60, 282, WIDTH - 78, 106)
        for index, curve in enumerate(curves):
            marker, colour, dashes = _SERIES.get(curve.error, ("v", MUTED, ":"))
            shift = (index - (len(curves) - 1) / 2) * 0.14 * min(1, n / 24)
            x = [place + shift for place in curve.places]
            _whiskers(upper, x, curve.low, curve.high, colour)
            upper.plot(
                x,
                curve.median,
                color=colour,
                marker=marker,
                ms=size,
                lw=1.1,
                ls=dashes,
                mec=PAPER,
                mew=0.5,
                label=short(curve.error.replace("_", " "), 24),
            )
            decibels = [(p, d) for p, d in zip(x, curve.sqnr_db, strict=True) if d is not None]
            if decibels:
                lower.plot(
                    *zip(*decibels, strict=True),
                    color=colour,
                    marker=marker,
                    ms=size * 0.75,
                    lw=1,
                    ls=dashes,
                    mec=PAPER,
                    mew=0.4,
                )
        for axes in (upper, lower):
            axes.set_xlim(-0.8, n - 0.2)
            step = next(s for s in (1, 2, 4, 5, 10, 20, 50, 100, n) if n / s <= 33)
            axes.set_xticks(range(0, n, step), [short(t, 8) for t in labels[::step]])
            axes.grid(axis="x", visible=False)
        upper.set_ylim(bottom=0)
        upper.set_ylabel("relative L2, median")
        lower.set_ylabel("SQNR, dB")
        lower.set_xlabel("block, from the input (left) to the output")
        upper.tick_params(labelbottom=False)
        upper.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4, borderaxespad=0.2)
        return to_svg(
            figure,
            "blocks",
            "Output error of the blocks over depth",
            f"{n} blocks; above the median relative L2 error with its interval, lower is better; "
            "below the signal to quantisation noise ratio, higher is better.",
        )


def _whiskers(
    axes: Axes, x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str
) -> None:
    """Draw all intervals of a series as one path: a chart of 100 blocks stays small."""
    gap = [math.nan] * len(x)
    across = [value for place in zip(x, x, gap, strict=True) for value in place]
    up = [value for ends in zip(low, high, gap, strict=True) for value in ends]
    axes.plot(across, up, color=colour, lw=1.2)


def document_strip(rows: Sequence[DocumentRow]) -> str:
    """Draw every document's NLL shift, one strip a corpus, with the corpus's own estimate."""
    rows = [row for row in rows if row.shifts]
    if not rows:
        return ""
    height = 46 * len(rows)
    with style():
        figure = new_figure(WIDTH, height + 74)
        axes = add_axes(figure, 150, 14, WIDTH - 168, height)
        axes.axvline(0, color=MUTED, lw=1)
        each = max(8, _MOST_POINTS // len(rows))
        for y, row in enumerate(rows):
            points = _thinned(sorted(zip(row.shifts, row.tokens, strict=True)), each)
            for least, most, size in _POINT_SIZES:
                chosen = [k for k, (_, tokens) in enumerate(points) if least <= tokens < most]
                spread = [y - 0.03 + 0.4 * ((k * 0.618034) % 1) for k in chosen]
                axes.plot(
                    [points[k][0] for k in chosen],
                    spread,
                    ls="",
                    marker="o",
                    ms=size,
                    color=REFERENCE,
                    alpha=0.55,
                    mew=0,
                )
            if row.value is not None:
                low, high = (
                    (row.low, row.high)
                    if row.low is not None and row.high is not None
                    else (row.value, row.value)
                )
                axes.plot([low, high], [y - 0.26] * 2, color=CANDIDATE, lw=3)
                axes.plot([row.value], [y - 0.26], color=CANDIDATE, marker="D", ms=6, mec=PAPER)
        axes.set_yticks(range(len(rows)), [short(row.corpus, 20) for row in rows], color=INK)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("NLL shift of a document, nats/token (right of 0: the candidate is worse)")
        return to_svg(
            figure,
            "documents",
            "NLL shift of every document, by corpus",
            "One point a document; the diamond and bar are the corpus's estimate and interval.",
        )


def _thinned(points: list[tuple[float, int]], most: int) -> list[tuple[float, int]]:
    """Keep at most ``most`` points, evenly through the sorted list, both extremes included."""
    if len(points) <= most:
        return points
    return [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]


@dataclass(frozen=True)
class Candidate:
    """One candidate of the combined report: its size, its damage and the verdict."""

    name: str
    bits: float
    value: float
    low: float | None
    high: float | None
    verdict: str


_VERDICT_MARKS = {
    "PASS": ("o", REFERENCE),
    "FAIL": ("X", BAD),
    "INCONCLUSIVE": ("D", ACCENT),
    "ANOMALOUS": ("P", ACCENT),
}


def trade_off(points: Mapping[int, Candidate], key: str, label: str) -> str:
    """Draw numbered candidates: bits per weight against damage with its interval."""
    if not points:
        return ""
    with style():
        figure = new_figure(WIDTH // 2, 320)
        axes = add_axes(figure, 66, 34, WIDTH // 2 - 84, 236)
        for verdict, (marker, colour) in _VERDICT_MARKS.items():
            for k, (number, c) in enumerate(points.items()):
                if c.verdict != verdict:
                    continue
                if c.low is not None and c.high is not None:
                    _whiskers(axes, [c.bits], [c.low], [c.high], colour)
                axes.plot([c.bits], [c.value], color=colour, marker=marker, ms=8, mec=colour)
                axes.annotate(
                    str(number),
                    (c.bits, c.value),
                    xytext=(8, 6 if k % 2 else -12),
                    textcoords="offset points",
                )
            if any(c.verdict == verdict for c in points.values()):
                axes.plot(
                    [], [], color=colour, marker=marker, ms=7, mec=colour, ls="", label=verdict
                )
        axes.margins(0.1, 0.14)
        axes.set_xlabel("bits per weight, measured (left: smaller)")
        axes.set_ylabel(label)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=4,
            columnspacing=1.2,
            handletextpad=0.2,
            borderaxespad=0.2,
        )
        told = (f"{k}: {c.name}, {c.bits:.2f} bits, {c.value:.4g}" for k, c in points.items())
        return to_svg(figure, key, f"Bits per weight against {label}", "; ".join(told))
