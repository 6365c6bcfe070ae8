"""Sections of the page: what each shows, and where they are found: by folder or entry point."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evalharness.report import estimates, render_html, sections
from evalharness.report import page as report_page
from evalharness.report.page import Placed, all_sections
from evalharness.report.section import Section
from evalharness.spec import plugins
from evalharness.spec.plugins import PluginWarning
from evalharness.spec.result import Result

from .page import Page, check_harmless

MODULE = """
from evalharness.report import Section

def fail(result):
    raise ValueError("no <b>number</b>")

GOOD = Section("mine", "Mine", lambda r: f"<p>of {len(r.metrics)} estimates</p>", place=25)
EMPTY = Section("empty", "Empty", lambda r: "", place=26, missing="Nothing of mine was measured.")
TAKEN = Section("gates", "Other gates", lambda r: "<p>x</p>")
FAILING = Section("failing", "Failing", fail, place=27)
NO_TEXT = Section("no-text", "No text", lambda r: None, place=28)
NO_SECTION = "gates"
"""


@pytest.fixture
def install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Callable[..., None]]:
    """Put a package on the path whose entry points offer sections by name."""
    package = f"package_of_sections_{abs(hash(request.node.name))}"

    def make(**names: str) -> None:
        (tmp_path / f"{package}.py").write_text(MODULE)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {package}:{attribute}" for name, attribute in names.items()]
        (info / "entry_points.txt").write_text("\n".join(["[evalharness.sections]", *lines]))
        monkeypatch.syspath_prepend(tmp_path)

    monkeypatch.setattr(plugins, "_broken", {})
    all_sections.cache_clear()
    yield make
    all_sections.cache_clear()


def test_every_file_of_the_folder_is_a_section_with_an_anchor_and_a_place_of_its_own() -> None:
    """Adding one is adding a file."""
    found = [placed.section for placed in all_sections() if placed.offered_as is None]
    assert len(found) == len(list(plugins.built_in(sections)))
    assert len({s.id for s in found}) == len({s.place for s in found}) == len(found)


def test_a_section_of_another_package_has_its_place_its_anchor_and_its_sentence(
    install: Callable[..., None], bare: Result
) -> None:
    """It is in the navigation as ours are, and says so where it has nothing to show."""
    install(mine="GOOD", empty="EMPTY")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        html = render_html(bare)
    page = check_harmless(html)
    places = [html.index(f'<section id="{name}">') for name in ("compared", "mine", "metrics")]
    assert places == sorted(places)
    assert ("a", "href", "#mine") in page.attributes
    assert f"Mine of {len(bare.metrics)} estimates" in page.text
    assert "Empty Nothing of mine was measured." in page.text


@pytest.mark.parametrize(
    ("attribute", "why"),
    [
        ("NOT_THERE", "has no attribute 'NOT_THERE'"),
        ("NO_SECTION", "must be a Section (got str)"),
        ("TAKEN", "the id 'gates' is taken"),
    ],
)
def test_what_is_no_section_is_named_and_left_out(
    install: Callable[..., None], bare: Result, attribute: str, why: str
) -> None:
    """The page and the other sections stay."""
    install(broken=attribute, mine="GOOD")
    with pytest.warns(PluginWarning) as said:
        html = render_html(bare)
    assert len(said) == 1
    assert "'broken' of package_of_sections" in str(said[0].message)
    assert why in str(said[0].message)
    assert '<section id="mine">' in html
    assert html.count('<section id="gates">') == 1


@pytest.mark.parametrize(
    ("attribute", "anchor", "why"),
    [
        ("FAILING", "failing", "ValueError: no <b>number</b>"),
        ("NO_TEXT", "no-text", "TypeError: render must return HTML as a str (got NoneType)"),
    ],
)
def test_a_section_of_another_package_that_fails_is_named_on_the_page_and_in_a_warning(
    install: Callable[..., None], bare: Result, attribute: str, anchor: str, why: str
) -> None:
    """What it raised is text, and the rest of the report is there."""
    install(broken=attribute)
    with pytest.warns(PluginWarning, match="'broken' of package_of_sections") as said:
        html = render_html(bare)
    assert why in str(said[0].message)
    section = html[html.index(f'<section id="{anchor}">') :].partition("</section>")[0]
    assert f"broken could not be rendered: {why}" in Page(section + "</section>").text
    check_harmless(html)


def test_a_section_of_ours_that_fails_is_a_bug_and_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, bare: Result
) -> None:
    """A page without it would look complete."""

    def fail(result: Result) -> str:
        raise ValueError("ours")

    monkeypatch.setattr(report_page, "all_sections", lambda: (Placed(Section("x", "X", fail)),))
    with pytest.raises(ValueError, match="ours"):
        render_html(bare)


def test_estimates_of_a_task_stand_with_the_tasks_alone(result: Callable[..., Result]) -> None:
    """And are shown even where no task's scores are."""
    r = result("FAIL", blocks=1, without=("tasks", "tokens", "layers"))
    for group in estimates.families(r, ("calibration",)):
        assert not [e for e in group.scoped if "task" in e.scope]
    html = render_html(r)
    section = html[html.index('<section id="tasks">') :]
    of_tasks = [e for e in r.metrics if "task" in e.scope]
    assert len(of_tasks) > 30
    assert f"Other metrics of the tasks: {len(of_tasks)} estimates" in section


def test_every_estimate_of_a_weight_or_router_is_on_the_page(
    result: Callable[..., Result],
) -> None:
    """A gate on them would otherwise have no evidence there."""
    # Fifteen weights, the module that has no counterpart, and a router.
    html = render_html(result("FAIL", blocks=2, without=("layers", "tokens")))
    assert "Every weight and router as an estimate: 17 estimates" in html
    assert "Not measured: add `probes: [layers]` to the suite." in html
    unlike = render_html(
        result("FAIL", blocks=2, unlike=True, without=("tokens", "items", "item_tokens", "tasks"))
    )
    assert "Not measured: the blocks have no counterpart." in unlike
    assert "Linear CKA, reference block by candidate block" in unlike


def test_costs_of_both_sides_stand_beside_each_other(page: Callable[..., str]) -> None:
    """One row a quantity, and what both sides share below."""
    html = page("PASS")
    section = html[html.index('<section id="cost">') : html.index('<section id="environment">')]
    text = Page(section.partition("</section>")[0] + "</section>").text
    assert (
        "WhatReferenceCandidate weights as shipped12.6 GiB3.88 GiB weights in memory here12.6 GiB"
        "3.88 GiB peak of one batch14.0 GiB5.59 GiB" in text
    )
    assert "Speed of each side" in text
    assert "ms to the first token" in text
    assert "tokens a second, decoding" in text
    assert "loading4.23 s tokens84.1 s tasks61.0 s peak of the process18.6 GiB" in text


@pytest.mark.parametrize(
    ("candidate_top", "said"),
    [("__('", "the reference prefers iv, the candidate __('"), ("iv", "both prefer iv")],
)
def test_probabilities_stand_beside_the_token_that_they_are_of(
    result: Callable[..., Result], candidate_top: str, said: str
) -> None:
    """They are the true token's, whatever either side prefers."""
    r = result("FAIL", blocks=1, without=("layers",))
    known = {"token": "iv", "p_reference": 0.954, "p_candidate": 0.0005, "reference_top": "iv"}
    token = r.worst_tokens[0].model_copy(update={**known, "candidate_top": candidate_top})
    text = Page(render_html(r.model_copy(update={"worst_tokens": [token]}))).text
    assert "true token iv: p 0.954 → 0.0005" in text
    assert said in text


def test_claims_that_were_held_against_the_tensors_are_named(result: Callable[..., Result]) -> None:
    """What can only be quoted is not said to agree, and of a GGUF file it is said what was held."""
    r = result("FAIL", blocks=1, without=("layers", "tokens"))
    known = {"claimed": {"bits": "4", "tool": "x"}, "disagreements": [], "file_groups": []}
    side = r.compared.candidate.model_copy(update=known)
    dense = {"kernel": "dequantised on loading", "file_groups": side.groups[:1]}
    for update, said in (
        ({}, "and in agreement: bits. What else it claims is only quoted."),
        ({"claimed": {"tool": "x"}}, "None of this can be measured: it is only quoted."),
        (
            dense,
            "Its file was dequantised on loading, so that what is held is the file’s own types",
        ),
    ):
        candidate = side.model_copy(update=update)
        compared = r.compared.model_copy(update={"candidate": candidate})
        assert said in Page(render_html(r.model_copy(update={"compared": compared}))).text
