"""Output error of the blocks over depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evalharness.report.charts.svg import (
    ACCENT,
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
    whiskers,
)
from evalharness.report.safe_text import short

if TYPE_CHECKING:
    from evalharness.report.layer_tables import BlockCurve

_SERIES = {  # error kind → marker, colour, line
    "total": ("o", INK, "-"),
    "own": ("s", CANDIDATE, "-"),
    "own_on_clean": ("D", ACCENT, "--"),
    "inherited": ("^", REFERENCE, "--"),
}


def curves(found: Sequence[BlockCurve], labels: Sequence[str]) -> str:
    """Draw each error of the blocks over depth, its interval as whiskers, and its SQNR below.

    ``labels`` name the blocks along the depth; a curve's points refer to them by place.
    """
    if not any(curve.places for curve in found):
        return ""
    n = len(labels)
    size = 5.0 if n <= 48 else 3.2
    with style():
        figure = new_figure(WIDTH, 440)
        upper = add_axes(figure, 60, 36, WIDTH - 78, 218)
        lower = add_axes(figure, 60, 282, WIDTH - 78, 106)
        for index, curve in enumerate(found):
            marker, colour, dashes = _SERIES.get(curve.error, ("v", MUTED, ":"))
            shift = (index - (len(found) - 1) / 2) * 0.14 * min(1, n / 24)
            x = [place + shift for place in curve.places]
            whiskers(upper, x, curve.low, curve.high, colour)
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
