"""What breaks when matplotlib moves: each test names what of ours would no longer hold."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from typing import Any

import matplotlib
import pytest

from evalharness.compat.matplotlib import figure_class, only, svg
from evalharness.report.charts.svg import SETTINGS, style

OTHER = {"axes.grid": False, "font.size": 30, "svg.fonttype": "path", "text.color": "red"}


def draw(name: str = "a name", **settings: Any) -> str:
    """A line with a title, as the backend writes it."""
    with only({"svg.hashsalt": "x", "svg.fonttype": "none", **settings}):
        figure = figure_class()(figsize=(2, 1), dpi=72)
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        axes.plot([0, 1], [0, 1], color="#c9560f", marker="o")
        axes.set_title(name)
        return " ".join(svg(figure))


def test_every_setting_of_ours_is_one_that_matplotlib_knows() -> None:
    """A setting that was renamed would raise KeyError at the first chart."""
    assert set(SETTINGS) <= set(matplotlib.rcParamsDefault)


def test_the_users_settings_neither_apply_nor_change() -> None:
    """The defaults are all of what a matplotlibrc may set, and come back after a chart."""
    ours = draw()
    with matplotlib.rc_context(OTHER):
        assert draw() == ours
        assert matplotlib.rcParams["font.size"] == 30


def test_no_backend_is_chosen() -> None:
    """Of the defaults the backend is left out: to set it would import it, and close figures."""
    code = (
        "import sys\n"
        "from evalharness.compat.matplotlib import figure_class, only, svg\n"
        "with only({}): svg(figure_class()(figsize=(1, 1)))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_function_that_writes_docstrings_is_there_and_put_back() -> None:
    """Without `artist.kwdoc` to replace, the import takes half as long again."""
    from matplotlib import artist

    assert figure_class() is not None
    assert artist.kwdoc.__module__ == "matplotlib.artist"
    # matplotlib calls it as it defines its classes; that it still does, a class of ours shows.
    called: list[type] = []
    described = artist.kwdoc
    artist.kwdoc = lambda found: called.append(found) or ""  # type: ignore[func-returns-value]
    try:
        type("Ours", (artist.Artist,), {"set_thing": lambda self, thing: None})
    finally:
        artist.kwdoc = described
    assert called


def test_a_missing_glyph_is_no_warning() -> None:
    """The text of the warning is what the filter knows it by."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw("漢字")
    with matplotlib.rc_context({"svg.fonttype": "path"}):
        figure = figure_class()(figsize=(1, 1))
        figure.text(0, 0, "漢字")
        with pytest.warns(UserWarning, match=r"^Glyph .* missing from font"):
            svg(figure)


def test_the_svg_has_the_form_that_is_rewritten() -> None:
    """Size in points, nothing of the machine or the clock, no style, whole up to its end."""
    box, body = draw().split(" <", 1)
    assert [float(x) for x in box.split()] == pytest.approx([0, 0, 144, 72])
    assert body.endswith("</svg>")
    assert not re.search("<metadata|<!--|<style|20[0-9]{2}-", body)


def test_the_same_figure_gives_the_same_ids() -> None:
    """The salt alone decides them: a report is the same bytes every time."""
    assert draw() == draw()
    assert re.search(r'id="m[0-9a-f]+"', draw()) is not None


def test_tags_hold_ids_references_colours_and_fonts_as_they_are_looked_for() -> None:
    """`report.charts.svg` rewrites these forms: ids of its own, the page's colours and font."""
    whole = draw()
    assert 'xlink:href="#m' in whole
    assert re.search(r'clip-path="url\(#p[0-9a-f]+\)"', whole)
    assert "stroke: #c9560f" in whole  # lower case, six digits
    with style():
        figure = figure_class()(figsize=(2, 1))
        figure.text(0.5, 0.5, "x")
        text = re.search(r"<text[^>]*>", svg(figure)[1])
    assert text is not None
    assert re.search(r"font[^;\"]*DejaVu Sans|font-family: [^;\"]*", text[0])


def test_text_is_text_and_no_mathematics() -> None:
    """``svg.fonttype`` and ``text.parse_math`` still do what they did."""
    assert "a$b$" in draw("a$b$", **{"text.parse_math": False})


def test_an_svg_without_a_viewbox_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than a chart of no size."""
    figure = figure_class()
    monkeypatch.setattr(figure, "savefig", lambda self, file, **more: file.write("<svg></svg>"))
    with pytest.raises(ValueError, match="wrote no viewBox"):
        draw()
