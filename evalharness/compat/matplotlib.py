"""Parts of matplotlib that it does not promise to keep: settings, start-up, the SVG it writes.

The charts ask for no more than this of what lies behind `Figure` and `Axes`. What each function
relies on, `tests/compat/test_matplotlib.py` holds against the library that is installed.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PX_PER_INCH = 72.0  # the SVG backend writes points: one user unit is one CSS pixel here

# Settings of the process rather than of a drawing; to set a backend here would load it.
_OF_THE_PROCESS = ("backend", "date.epoch", "webagg", "savefig.directory")
_UNUSED = (r"<metadata>.*?</metadata>", r"<!--.*?-->", r"<style\b.*?</style>")


@contextmanager
def only(settings: Mapping[str, Any]) -> Iterator[None]:
    """Draw with matplotlib's defaults and ``settings``, whatever the user's matplotlibrc says.

    A character that the font lacks is no warning: the page's font draws it.
    """
    import matplotlib

    defaults = {
        key: value
        for key, value in matplotlib.rcParamsDefault.items()
        if not key.startswith(_OF_THE_PROCESS)
    }
    with warnings.catch_warnings(), matplotlib.rc_context({**defaults, **settings}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@functools.cache
def figure_class() -> type[Figure]:
    """matplotlib's `Figure`, imported without the docstrings that it makes up.

    They take a third of the time of the import; `matplotlib.artist.kwdoc` writes them.
    """
    from matplotlib import artist

    described = artist.kwdoc
    artist.kwdoc = lambda artist: ""
    try:
        from matplotlib.figure import Figure
    finally:
        artist.kwdoc = described
    return Figure


def svg(figure: Figure) -> tuple[str, str]:
    """The ``viewBox`` of a figure, as four numbers, and its elements up to ``</svg>``.

    Without date, creator, comments and style sheet: the same figure gives the same text, given
    ``svg.hashsalt``.

    Raises
    ------
    ValueError
        The SVG has no ``viewBox``: the backend writes another form than it did.

    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    opening, _, body = text[text.index("<svg") :].partition(">")
    box = re.search(r'viewBox="([\d. ]+)"', opening)
    if box is None:
        raise ValueError("the SVG backend wrote no viewBox")
    for unused in _UNUSED:
        body = re.sub(unused, "", body, flags=re.DOTALL)
    return box[1], re.sub(r">\s+<", "><", body).strip()
