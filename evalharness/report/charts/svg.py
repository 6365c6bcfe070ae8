"""From a matplotlib figure to an SVG that lives in a page.

The SVG takes its colours from the page's CSS variables (light, dark and print alike), its font
from the page, is named for screen readers, and its ids carry a key so that several charts can
share one page. The same figure always gives the same bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from evalharness.compat.matplotlib import PX_PER_INCH, figure_class, only, svg
from evalharness.report.safe_text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours as matplotlib sees them → the variable of reports/report.css that takes their place.
INK, MUTED, GRID, PAPER = "#1b2430", "#5c6773", "#dfe4ea", "#fefefe"
REFERENCE, CANDIDATE, ACCENT, BAD = "#2f6fb0", "#c9560f", "#6f4aa5", "#b3261e"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    REFERENCE: "reference",
    CANDIDATE: "candidate",
    ACCENT: "accent",
    BAD: "fail",
}
FONT_PX = 11.5
WIDTH = 1080  # CSS pixels of a page-wide chart; the page scrolls it sideways where it is narrower


SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "evalharness",
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": FONT_PX,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": FONT_PX,
    "axes.titlesize": FONT_PX + 1,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # fixed: searching for a free place takes a tenth of the time
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": FONT_PX - 0.5,
    "ytick.labelsize": FONT_PX - 0.5,
    "legend.frameon": False,
    "legend.fontsize": FONT_PX,
    "figure.facecolor": "none",
}


def style() -> AbstractContextManager[None]:
    """Draw with our settings alone, whatever the user's matplotlibrc says."""
    return only(SETTINGS)


def new_figure(width: int, height: int) -> Figure:
    """Return an empty figure of ``width`` × ``height`` CSS pixels."""
    return figure_class()(figsize=(width / PX_PER_INCH, height / PX_PER_INCH), dpi=PX_PER_INCH)


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at pixels from the figure's top left corner."""
    across = figure.get_figwidth() * PX_PER_INCH
    down = figure.get_figheight() * PX_PER_INCH
    return figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )


def whiskers(
    axes: Axes, x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str
) -> None:
    """Draw all intervals of a series as one path: a chart of 100 blocks stays small."""
    gap = [math.nan] * len(x)
    across = [value for place in zip(x, x, gap, strict=True) for value in place]
    up = [value for ends in zip(low, high, gap, strict=True) for value in ends]
    axes.plot(across, up, color=colour, lw=1.2)


def to_svg(figure: Figure, key: str, title: str, description: str) -> str:
    """Return ``figure`` as an inline SVG named ``title``; ``key`` makes its ids unique."""
    if not re.fullmatch(r"[a-z][a-z0-9-]*", key):
        raise ValueError(f"key: must be a lower-case word, as it becomes an id (got {key!r})")
    box, body = svg(figure)
    # Only inside tags: text is what somebody named a corpus or a layer, and stays as it is.
    body = re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], key), body)
    width = float(box.split()[2])
    return (
        f'<svg class="chart" viewBox="{box}" style="--w:{width:.0f}px" role="img" '
        f"aria-labelledby={quoteattr(f'{key}-title {key}-desc')}>"
        f'<title id="{key}-title">{escape(visible(title))}</title>'
        f'<desc id="{key}-desc">{escape(visible(description))}</desc>{body}'
    )


def _tag(tag: str, key: str) -> str:
    """Rewrite one tag: ids of its own, the page's colours and font, no needless digits."""
    tag = tag.replace("xlink:href=", "href=")
    tag = re.sub(r'\bid="', f'id="{key}-', tag)
    tag = re.sub(r'\bhref="#', f'href="#{key}-', tag)
    tag = tag.replace("url(#", f"url(#{key}-")
    for colour, name in _VARIABLES.items():
        tag = tag.replace(colour, f"var(--{name})")
    tag = re.sub(r" ?font-family: [^;\"]*;?", "", tag)
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    return re.sub(r"\s+", " ", tag)
