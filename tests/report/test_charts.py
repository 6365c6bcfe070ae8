"""Charts are whole, named, deterministic, and never larger or vaguer than they must be."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from evalharness.report import estimates, layer_tables
from evalharness.report.charts import blocks, documents, kl, reliability, trade_off
from evalharness.report.charts.documents import DocumentRow
from evalharness.report.charts.svg import new_figure, style, to_svg
from evalharness.report.charts.trade_off import Candidate
from evalharness.report.safe_text import visible
from evalharness.spec.result import Histogram, Result

from .page import Page


def over_depth(r: Result) -> str:
    """The chart of the blocks of a result."""
    labels, curves = layer_tables.blocks(r.layers)
    return blocks.curves(curves, labels)


DRAW: dict[str, Callable[[Result], str]] = {
    "kl": lambda r: kl.histogram(r.figures.kl or Histogram(edges=[], counts=[]), {}),
    "reliability": lambda r: reliability.diagrams(
        reliability.by_scope(r)[0].sides, "reliability-0", "everything"
    ),
    "blocks": over_depth,
    "documents": lambda r: documents.strip(documents.by_corpus(r)),
    "trade": lambda r: trade_off.scatter(
        {
            1: Candidate("a", 4.5, 1.02, 1.01, 1.03, "PASS"),
            2: Candidate("b", 8.0, 1.0, None, None, "FAIL"),
        },
        "trade",
        "ratio",
    ),
}


@pytest.mark.parametrize("name", DRAW)
def test_a_chart_is_a_whole_svg_with_a_name_and_ids_of_its_own(
    result: Callable[..., Result], name: str
) -> None:
    """It parses as XML, is an image with a title, and shares no id with another chart."""
    svg = DRAW[name](result("PASS"))
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    ids = [e.get("id", "") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    key = ids[0].removesuffix("-title")
    assert all(i.startswith(f"{key}-") for i in ids)
    title = root.find("title")
    assert title is not None
    assert title.text


@pytest.mark.parametrize("name", DRAW)
def test_a_chart_has_text_as_text_and_no_date_font_or_colour(
    result: Callable[..., Result], name: str
) -> None:
    """The page's font and colours apply, and the same data gives the same bytes."""
    svg = DRAW[name](result("PASS"))
    assert "<text" in svg
    assert not re.search(r"#[0-9a-f]{6}|font-family|<metadata|<style|http", svg)
    assert svg == DRAW[name](result("PASS"))


def test_a_users_matplotlib_settings_change_nothing(result: Callable[..., Result]) -> None:
    """A dark style in a matplotlibrc stays out of the report."""
    import matplotlib

    before = DRAW["blocks"](result("PASS"))
    with matplotlib.rc_context({"axes.grid": False, "font.size": 30, "svg.fonttype": "path"}):
        assert DRAW["blocks"](result("PASS")) == before


@pytest.mark.parametrize(
    "name", ["a$b$", "$\\frac{", "</text><script>", "漢字", "\x1b\u202e", "#1b2430"]
)
def test_any_corpus_name_is_drawn_as_it_is(name: str) -> None:
    """Neither mathematics, nor markup, nor a colour to replace."""
    rows = [DocumentRow(name, [0.1, 0.2], [10, 900], 0.15, 0.1, 0.2)]
    root = ET.fromstring(documents.strip(rows))
    words = [e.text for e in root.iter("text")]
    assert visible(name) in words


def test_nothing_to_draw_is_no_chart() -> None:
    """An empty chart would look measured."""
    assert kl.histogram(Histogram(edges=[1e-3, 1e-2], counts=[0]), {}) == ""
    assert kl.histogram(Histogram(edges=[], counts=[]), {"mean": 0.1}) == ""
    assert reliability.diagrams({"reference": []}, "r", "x") == ""
    assert reliability.diagrams({}, "r", "x") == ""
    assert blocks.curves([], []) == ""
    assert documents.strip([]) == ""
    assert trade_off.scatter({}, "t", "x") == ""


def test_labels_above_an_axis_never_overlap() -> None:
    """Close quantiles get rows of their own."""
    marks = {"median": 0.01, "mean": 0.011, "p99": 0.0115, "p99.9": 0.9}
    placed = kl._label_rows(marks, -4, 1, 1000)
    rows: dict[int, list[tuple[float, float]]] = {}
    for text, _, centre, row in placed:
        half = len(text) * kl._CHAR_PX / 2
        rows.setdefault(row, []).append((centre - half, centre + half))
    for spans in rows.values():
        spans.sort()
        assert all(a[1] < b[0] for a, b in pairwise(spans))
        assert spans[0][0] >= 0
        assert spans[-1][1] <= 1000
    assert len(rows) == 3


def test_thousands_of_documents_are_thinned_evenly_with_both_extremes() -> None:
    """The page stays small and no outlier is lost."""
    points = [(float(k), 1) for k in range(10_000)]
    kept = documents._thinned(points, 100)
    assert len(kept) == 100
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_a_key_becomes_an_id_and_is_checked() -> None:
    """An id that would break the page is refused where it is made."""
    with style():
        figure = new_figure(100, 100)
        with pytest.raises(ValueError, match="must be a lower-case word"):
            to_svg(figure, 'x" onload="', "t", "d")


def test_a_document_without_a_number_is_not_drawn_and_counted(
    result: Callable[..., Result], page: Callable[..., str]
) -> None:
    """One NaN costs its own document, and no other."""
    r = result("ANOMALOUS")
    found, without = documents.most_shifted(r)
    assert (len(found), without) == (71, 1)
    assert [d.shift for d in found] == sorted((d.shift for d in found), reverse=True)
    assert "1 document without a number is not drawn" in Page(page("ANOMALOUS")).text


def test_corpora_keep_the_order_of_the_suite(result: Callable[..., Result]) -> None:
    """Not the alphabet's, and not that of the damage."""
    assert [row.corpus for row in documents.by_corpus(result("PASS"))] == ["pydoc", "wiki", "mine"]


def test_calibration_errors_are_found_by_the_name_of_their_scope(
    result: Callable[..., Result],
) -> None:
    """Over everything, and a task by its name; none is invented."""
    r = result("PASS")
    everything, *tasks = reliability.by_scope(r)
    assert everything.name == "next token"
    assert [t.name for t in tasks] == ["mmlu_dev_cloze", "arc_easy", "hellaswag"]
    for found in (everything, *tasks):
        assert sorted(found.errors) == ["candidate", "reference"]
    assert everything.errors["candidate"] == estimates.find(r, "ece.candidate")
