"""report.html: whole, self-contained, honest about what is missing, and immune to its content."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalharness.report import render_html
from evalharness.report.page import all_sections
from evalharness.report.safe_text import visible
from evalharness.spec.result import Cost, Figures, Result

from .conftest import HOSTILE
from .page import Page, check_harmless


@pytest.fixture(scope="module")
def fail_page(page: Callable[..., str]) -> str:
    """The page of a failing run."""
    return page("FAIL")


@pytest.fixture(scope="module")
def fail_text(fail_page: str) -> str:
    """Its words."""
    return Page(fail_page).text


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
    for text in ("KL divergence, mean", "Same most likely token", "Logit half-range", "1,710"):
        assert text in table
    folded = section[section.index("Other metrics of the tasks: ") :]
    assert "a maximum grows with the sample" in folded.partition("</details>")[0]


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
    order = [fail_page.index(f'id="{placed.section.id}"') for placed in all_sections()]
    assert order == sorted(order)
    assert fail_page.index("<h1>") < fail_page.index('id="gates"') < fail_page.index('id="notices"')


@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "INCONCLUSIVE", "ANOMALOUS"])
def test_each_verdict_is_said_in_words_with_its_exit_code(
    result: Callable[..., Result], page: Callable[..., str], verdict: str
) -> None:
    """Never by colour alone."""
    r, found = result(verdict), check_harmless(page(verdict))
    assert f"{verdict} {r.headline}" in found.text
    assert f"exit code {r.exit_code}" in found.text


def test_a_gate_shows_what_its_reader_needs(fail_text: str) -> None:
    """Observed, interval, limit, reason, worst, place, waiver, further documents, standing."""
    for needed in (
        "1.081",
        "[1.068, 1.094]",
        "≤ 1.03",
        "Worst: document pydoc/pydoc#16 (+0.1909 nats/token).",
        "gates/default.yaml:4",
        "(ada): outlier channel 1512, kept at 4 bits",
        "About 2,380 more documents or items would settle it.",
        "not blocking (warn)",
        "over task arc_easy (acc_norm)",
    ):
        assert needed in fail_text


def test_what_blocks_stands_above_what_does_not(fail_page: str) -> None:
    """The blocking FAIL comes first, a PASS after what was waived or only warns."""
    table = fail_page[fail_page.index('id="gates"') :]
    order = [table.index(f'"gid">{g}<') for g in ("perplexity", "layer-error", "arc-drop", "kl")]
    assert order == sorted(order)


def test_the_worst_layer_and_disagreements_are_named(fail_text: str) -> None:
    """The page says where the error comes from and what the file claims wrongly."""
    assert "Worst: model.layers.3.mlp.down_proj, own error" in fail_text
    assert "group_size: the file claims 64, the loaded tensors have 32" in fail_text
    assert "Unmatched on the reference (1): model.rotary_emb (LlamaRotaryEmbedding)" in fail_text


def test_what_was_not_measured_says_so_and_is_not_green(bare: Result) -> None:
    """Every section without data stays, with a sentence."""
    html = render_html(bare)
    text = check_harmless(html).text
    for placed in all_sections():
        assert f'id="{placed.section.id}"' in html
    for sentence in (
        "No metric was measured.",
        "Not measured: the suite names no task.",
        "Not measured: add `probes: [layers]` to the suite.",
        "The loss by document was not measured.",
        "Calibration was not measured.",
        "A model against itself",
    ):
        assert sentence in text
    assert "v-pass" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)


def test_what_only_an_older_or_foreign_file_lacks_is_said(bare: Result) -> None:
    """A policy has a gate at least, and a run its command: no run of ours comes to this."""
    emptied = {"gates": [], "metrics": [], "cost": Cost(), "command": "", "environment": {}}
    text = Page(render_html(bare.model_copy(update=emptied))).text
    for sentence in (
        "No gate was applied: nothing was decided, so nothing passed.",
        "Cost was not measured.",
        "The command was not recorded.",
        "The environment was not recorded.",
    ):
        assert sentence in text


def test_a_missing_number_is_a_dash_with_its_reason(page: Callable[..., str]) -> None:
    """Null is neither 0 nor nothing."""
    text = Page(page("ANOMALOUS")).text
    assert re.search(r"— 1 of \d+ positions have NaN or infinite kl ", text)


def test_a_page_of_hostile_strings_is_whole_and_harmless(hostile: Callable[..., Result]) -> None:
    """Names, tokens, prompts, corpora and layers may hold markup, escapes and overrides."""
    page = check_harmless(render_html(hostile()))
    assert "onerror=alert(1)" in page.text
    assert "⟨U+202E⟩" in page.text
    assert "{{7*7}}" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u200b]", page.text)


@settings(max_examples=20, deadline=None)
@given(text=st.one_of(st.text(min_size=1), st.text("<>&\"'`=/ on{}%#$\\;", min_size=1)))
def test_no_string_becomes_markup(any_text: Callable[..., Result], text: str) -> None:
    """Whatever is put into every free string, the page stays ours."""
    r = any_text(text, without=("tokens", "layers"))
    r = r.model_copy(update={"figures": Figures()})  # no chart: they take most of the time
    page = check_harmless(render_html(r))
    assert " ".join(visible(text).split()) in page.text


def test_names_pass_through_the_builder(
    hostile: Callable[..., Result], any_text: Callable[..., Result]
) -> None:
    """So that a text put into a result afterwards is one that the builder would have put there."""
    assert any_text(HOSTILE) == hostile(HOSTILE)


def test_a_token_shows_the_spaces_at_its_edges(fail_text: str) -> None:
    """' functions' and 'functions' are two tokens, and a newline is one too."""
    assert "␣functions" in fail_text
    assert "↵↵" in fail_text


def test_long_lists_are_cut_and_the_rest_is_counted(
    result: Callable[..., Result], fail_text: str
) -> None:
    """As many modules as a model has do not make as many rows."""
    r = result("FAIL")
    assert len(r.weights) == 29
    assert "Weights 29 tensors; the 20 furthest from the reference" in fail_text
    assert "The 20 worst of 29 linears" in fail_text
