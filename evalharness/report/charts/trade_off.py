"""Bits per weight against damage: the candidates of one reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evalharness.report.charts.svg import (
    ACCENT,
    BAD,
    REFERENCE,
    WIDTH,
    add_axes,
    new_figure,
    style,
    to_svg,
    whiskers,
)


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


def scatter(points: Mapping[int, Candidate], key: str, label: str) -> str:
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
                    whiskers(axes, [c.bits], [c.low], [c.high], colour)
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
