"""report.html: whole, self-contained, honest about what is missing, and immune to its content."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalharness.report import render_html
from evalharness.report.page import all_sections
from evalharness.report.text import visible
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import Figures, Result

from .page import Page, check_harmless


@pytest.fixture(scope="module")
def fail_page(result: Callable[..., Result]) -> str:
    """The page of a failing run, rendered once."""
    return render_html(result("FAIL"))


def test_the_page_is_whole_and_fetches_nothing(fail_page: str) -> None:
    """Every tag is closed in order; no source, import, script or outside link."""
    check_harmless(fail_page)
    assert "http" not in fail_page.replace("http-equiv", "")


def test_ids_are_unique_and_references_resolve(fail_page: str) -> None:
    """Several charts share one page without taking each other's clip paths."""
    page = Page(fail_page)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = [value[1:] for _, name, value in page.attributes if name == "href"]
    used += re.findall(r"url\(#([^)]+)\)", fail_page)
    used += [
        word
        for _, name, value in page.attributes
        if name == "aria-labelledby"
        for word in value.split()
    ]
    assert set(used) <= set(ids)


def test_every_row_of_a_table_has_as_many_cells_as_its_head(fail_page: str) -> None:
    """A colspan counts for what it spans."""
    for table in re.findall(r"<table.*?</table>", fail_page, re.DOTALL):
        widths = set()
        for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL):
            cells = re.findall(r"<t[hd]\b[^>]*>", row)
            spans = [re.search(r'colspan="(\d+)"', cell) for cell in cells]
            widths.add(sum(int(span[1]) if span else 1 for span in spans))
        assert len(widths) == 1, table[:300]


def test_every_picture_is_named(fail_page: str) -> None:
    """A chart is an image with a label or title for those who cannot see it."""
    for opening in re.findall(r"<svg[^>]*>", fail_page):
        assert "aria-hidden" in opening or ('role="img"' in opening and "aria-label" in opening)


def test_how_far_predictions_moved_on_a_task_stands_with_its_scores(fail_page: str) -> None:
    """KL, agreement and half-range at its scored positions; the rest is folded away."""
    section = fail_page[fail_page.index('id="tasks"') : fail_page.index('id="tokens"')]
    head = "How far predictions moved on the tasks"
    table = section[section.index(head) :].partition("</table>")[0]
    assert table.count('<th scope="row">') == 3
    for text in ("KL divergence, mean", "Same most likely token", "Logit half-range", "8,550"):
        assert text in table
    folded = section[section.index("Other metrics of the tasks: 6 estimates") :]
    assert "an extreme" in folded.partition("</details>")[0]


def test_colours_follow_the_page(fail_page: str) -> None:
    """No chart holds a colour of its own: dark mode and print reach it."""
    for svg in re.findall(r"<svg.*?</svg>", fail_page, re.DOTALL):
        assert re.findall(r"(?:fill|stroke)[:=]\s*\"?#", svg) == []
    variables = set(re.findall(r"var\((--[\w-]+)\)", fail_page))
    defined = set(re.findall(r"(--[\w-]+):", fail_page))
    assert variables <= defined


def test_the_same_result_gives_the_same_bytes(
    result: Callable[..., Result], fail_page: str
) -> None:
    """Nothing of the clock, the machine or a hash seed gets in."""
    assert render_html(result("FAIL")) == fail_page


def test_the_verdict_and_the_gates_come_first(fail_page: str) -> None:
    """The order of the page is the order of the questions."""
    order = [fail_page.index(f'id="{s.id}"') for s in all_sections()]
    assert order == sorted(order)
    assert fail_page.index("<h1>") < fail_page.index('id="gates"') < fail_page.index('id="notices"')


@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "INCONCLUSIVE", "ANOMALOUS"])
def test_each_verdict_is_said_in_words_with_its_exit_code(
    result: Callable[..., Result], verdict: str
) -> None:
    """Never by colour alone."""
    r = result(verdict, blocks=0, figures=Figures())
    page = check_harmless(render_html(r))
    assert f"{verdict} {r.headline}" in page.text
    assert f"exit code {r.exit_code}" in page.text


def test_a_gate_shows_what_its_reader_needs(fail_page: str) -> None:
    """Observed, interval, limit, reason, worst, place, waiver, further documents, standing."""
    text = Page(fail_page).text
    for needed in (
        "1.0328",
        "[1.0286, 1.0369]",
        "≤ 1.02",
        "Worst: corpus wiki (+2.1%)",
        "gates/default.yaml:12",
        "Waiver: outlier channel 1512",
        "1,240 further documents",
        "not blocking (warn)",
        "over task arc_easy (acc_norm)",
    ):
        assert needed in text


def test_what_blocks_stands_above_what_does_not(fail_page: str) -> None:
    """The blocking FAIL comes first, a PASS after what was waived or only warns."""
    table = fail_page[fail_page.index('id="gates"') :]
    order = [table.index(f'"gid">{g}<') for g in ("perplexity", "layer-error", "arc-drop", "kl")]
    assert order == sorted(order)


def test_the_worst_layer_and_disagreements_are_named(fail_page: str) -> None:
    """The page says where the error comes from and what the file claims wrongly."""
    text = Page(fail_page).text
    assert "Worst: model.layers.29.mlp.down_proj, own error" in text
    assert "group_size: the file claims 64, the loaded tensors have 32" in text
    assert "Unmatched on the reference (1): model.rotary_emb" in text


def test_what_was_not_measured_says_so_and_is_not_green(bare: Result) -> None:
    """Every section without data stays, with a sentence."""
    html = render_html(bare)
    text = check_harmless(html).text
    for section in all_sections():
        assert f'id="{section.id}"' in html
    for sentence in (
        "No gate was applied: nothing was decided, so nothing passed.",
        "No metric was measured.",
        "Not measured: the suite names no task.",
        "Not measured: add `probes: [layers]` to the suite.",
        "Cost was not measured.",
        "The command was not recorded.",
        "A model against itself",
    ):
        assert sentence in text
    assert "v-pass" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)


def test_a_missing_number_is_a_dash_with_its_reason(result: Callable[..., Result]) -> None:
    """Null is neither 0 nor nothing."""
    why = "the candidate has another vocabulary"
    r = result("PASS", metrics=[Estimate(id="kl.mean", value=None, reason=why)], figures=Figures())
    text = Page(render_html(r.model_copy(update={"layers": []}))).text
    assert f"— {why}" in text


def test_a_page_of_hostile_strings_is_whole_and_harmless(hostile: Callable[..., Result]) -> None:
    """Names, tokens, prompts, corpora and layers may hold markup, escapes and overrides."""
    page = check_harmless(render_html(hostile()))
    assert "onerror=alert(1)" in page.text
    assert "⟨U+202E⟩" in page.text
    assert "{{7*7}}" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u200b]", page.text)


@settings(max_examples=20, deadline=None)
@given(text=st.one_of(st.text(min_size=1), st.text("<>&\"'`=/ on{}%#$\\;", min_size=1)))
def test_no_string_becomes_markup(hostile: Callable[..., Result], text: str) -> None:
    """Whatever is put into every free string, the page stays ours."""
    r = hostile(text, blocks=1).model_copy(update={"figures": Figures(), "layers": []})
    page = check_harmless(render_html(r))
    assert " ".join(visible(text).split()) in page.text


def test_a_token_shows_the_spaces_at_its_edges(fail_page: str) -> None:
    """' functions' and 'functions' are two tokens, and a newline is one too."""
    text = Page(fail_page).text
    assert "␣functions" in text
    assert "↵↵" in text


def test_long_lists_are_cut_and_the_rest_is_counted(result: Callable[..., Result]) -> None:
    """A thousand flipped items do not make a page of a thousand prompts."""
    r = result("FAIL", blocks=0, figures=Figures())
    r = r.model_copy(update={"flipped": r.flipped * 50})
    text = Page(render_html(r)).text
    assert "240 more flipped items are in result.json" in text
