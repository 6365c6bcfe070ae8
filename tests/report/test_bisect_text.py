"""What bisect found, as lines for a terminal and as a section of the page."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evalharness.report import render_html
from evalharness.report.bisect_text import repair_lines, replay_lines, sensitivity_lines
from evalharness.spec.result import Result

from .page import Page, check_harmless

SMALL = {
    "documents": 12,
    "without": ("tokens", "items", "item_tokens", "tasks", "layers", "weights", "activations"),
}
CULPRIT = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def repaired(result: Callable[..., Result]) -> Result:
    """A run after a bisect that found one module."""
    return result("FAIL", repair=(CULPRIT,), **SMALL)


def section(r: Result) -> str:
    """The words of the section on the page."""
    html = render_html(r)
    check_harmless(html)
    start = html.index('<section id="repair">')
    return Page(html[start:].partition("</section>")[0] + "</section>").text


def test_a_minimal_repair_says_what_it_keeps_and_both_verdicts(repaired: Result) -> None:
    """In the terminal and on the page."""
    assert repaired.repair is not None
    before, after = repaired.repair.verdict_before, repaired.repair.verdict_after
    lines = repair_lines(repaired.repair)
    assert lines[0] == (
        f"{before} → {after} on 48 held-out documents, with 1 of 14 modules kept as in the "
        "reference (leaving out any one of them, it did not pass)"
    )
    assert "bits per weight: 4.95 → 5.31" in lines
    assert f"  keep {CULPRIT}" in lines
    assert "not searched on: arc-drop: tasks are not measured in a trial" in lines
    text = section(repaired)
    assert f"{before} → {after} with 1 of 14 modules kept as in the reference: 4.95 → 5.31" in text
    assert "Leaving out any one of them, the policy did not pass" in text


def test_a_repair_that_may_not_be_minimal_says_so(result: Callable[..., Result]) -> None:
    """How many of its members were tried."""
    r = result("FAIL", repair=(CULPRIT, "model.layers.0.mlp.up_proj"), **SMALL)
    assert r.repair is not None
    assert "(1 of them shown to be needed, so a smaller set may do)" in repair_lines(r.repair)[0]
    assert "A smaller set may do: 1 of them were shown to be needed." in section(r)


def test_no_repair_says_why(result: Callable[..., Result]) -> None:
    """And what was tried."""
    r = result("FAIL", repair=(), **SMALL)
    assert r.repair is not None
    assert repair_lines(r.repair) == [
        "no repair: not even the reference's own modules throughout pass on the search documents",
        "23 evaluations over 14 modules",
    ]
    assert "No repair was found: not even the reference's own modules" in section(r)


def test_the_ranking_shows_its_controls(repaired: Result) -> None:
    """And counts no module that is not there."""
    lines = sensitivity_lines(repaired.sensitivity)
    assert lines[0].endswith("on 6 documents, 60 tokens (the first 3 of 3 modules)")
    assert lines[2].split()[0] == "model.layers.0.self_attn.q_proj"
    assert "swapping a module for itself gives 0; the single swaps add up to 1.62 ×" in lines[-1]
    assert "swapping a module for itself gives a KL of 0" in section(repaired)
    assert sensitivity_lines(None) == []


def test_a_replayed_evaluation_is_the_same_or_not(repaired: Result) -> None:
    """To the last bit, as the log has it."""
    assert repaired.repair is not None
    gates = repaired.repair.before
    kept = [{k: getattr(g, k) for k in ("id", "verdict", "observed", "bound")} for g in gates]
    row = {"restored": [CULPRIT], "documents": 24, "verdict": "FAIL", "gates": kept}
    lines, same = replay_lines(3, row, gates, "FAIL")
    assert same
    assert lines[0].endswith("FAIL then, FAIL now (the same to the last bit)")
    kept[0]["observed"] = 0.5
    lines, same = replay_lines(3, row, gates, "FAIL")
    assert not same
    assert "not the same" in lines[0]
