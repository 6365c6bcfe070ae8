"""The loss shift of every document, one strip per corpus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evalharness.metrics.perplexity import NLL_SHIFT
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
from evalharness.report.safe_text import short
from evalharness.spec.result import DocumentShift, Result

_MOST_POINTS = 1500
_POINT_SIZES = ((0, 200, 3.2), (200, 600, 4.6), (600, math.inf, 6.2))  # tokens, diameter


@dataclass(frozen=True)
class DocumentRow:
    """The documents of one corpus, with the corpus's own estimate."""

    corpus: str
    shifts: list[float]
    tokens: list[int]
    value: float | None
    low: float | None
    high: float | None


def by_corpus(result: Result) -> list[DocumentRow]:
    """Return one row a corpus, in the order of the suite; documents without a number left out."""
    given = result.figures.nll_by_document
    rows: dict[str, list[tuple[float, int]]] = {d.corpus: [] for d in given}
    for d in given:
        if d.shift is not None:
            rows[d.corpus].append((d.shift, d.tokens))
    found = []
    for corpus, points in rows.items():
        # A lone corpus is everything.
        e = find(result, NLL_SHIFT.id, {"corpus": corpus} if len(rows) > 1 else {})
        ends = (None, None, None) if e is None else (e.value, e.low, e.high)
        found.append(DocumentRow(corpus, [s for s, _ in points], [n for _, n in points], *ends))
    return found


def most_shifted(result: Result) -> tuple[list[DocumentShift], int]:
    """Return the documents that have a shift, the largest first, and how many have none."""
    given = result.figures.nll_by_document
    known = [(d.shift, d) for d in given if d.shift is not None]
    known.sort(key=lambda pair: (-pair[0], pair[1].corpus, pair[1].document))
    return [d for _, d in known], len(given) - len(known)


def strip(rows: Sequence[DocumentRow]) -> str:
    """Draw every document's NLL shift, one strip per corpus, with the corpus's own estimate."""
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
            "One point per document; the diamond and bar are the corpus's estimate and interval.",
        )


def _thinned(points: list[tuple[float, int]], most: int) -> list[tuple[float, int]]:
    """Keep at most ``most`` points, evenly through the sorted list, both extremes included."""
    if len(points) <= most:
        return points
    return [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]
