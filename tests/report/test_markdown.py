"""summary.md: tables stay whole, and nothing in a name becomes Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalharness.report import render_markdown
from evalharness.report.markdown import escape
from evalharness.spec.result import Result


def check_tables(markdown: str) -> int:
    """Assert that each table has as many cells in every row; return the number of tables."""
    tables = 0
    for block in markdown.split("\n\n"):
        if not block.startswith("|"):
            continue
        tables += 1
        lines = block.splitlines()
        assert re.fullmatch(r"\|( :?-+:? \|)+", lines[1])
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
    return tables


@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "INCONCLUSIVE", "ANOMALOUS"])
def test_the_summary_leads_with_the_verdict(result: Callable[..., Result], verdict: str) -> None:
    """The first line of a pull-request comment is the answer."""
    text = render_markdown(result(verdict))
    assert text.startswith(("## ✓ PASS:", "## ✕ FAIL:", "## ? INCONCLUSIVE:", "## ! ANOMALOUS:"))
    assert text.splitlines()[0].split()[2] == f"{verdict}:"
    assert check_tables(text) == 3


def test_the_summary_has_gates_metrics_sides_tasks_and_the_worst_layer(
    result: Callable[..., Result],
) -> None:
    """Everything a reviewer asks first."""
    text = render_markdown(result("FAIL"))
    for needed in (
        "**6 gates: 3 PASS, 1 INCONCLUSIVE, 2 FAIL (1 waived, 1 not blocking)**",
        "| 1.081 | [1.068, 1.094] | ≤ 1.03 |",
        "(ada): outlier channel 1512",
        "About 2,380 more documents or items would settle it.",
        "**Reference** smol-7b-instruct: 6.74 B parameters, 16.00 bits per weight, 12.6 GiB",
        "**Candidate** smol-7b-instruct-int4: 6.74 B parameters, 4.95 bits per weight, 3.88 GiB",
        "| arc\\_easy | acc\\_norm ↑ | 570 |",
        "**Worst layer:** <code>model.layers.3.mlp.down\\_proj</code>, own error",
        "exit code 1 (a blocking gate failed)",
    ):
        assert needed in text


def test_what_was_not_measured_is_said(bare: Result) -> None:
    """No empty table that looks like a pass."""
    text = render_markdown(bare)
    assert "Tasks: not measured." in text
    assert "Layers: not measured." in text
    # A policy has a gate at least: only a result.json that something else has written.
    text = render_markdown(bare.model_copy(update={"gates": []}))
    assert "**No gate was applied: nothing was decided, so nothing passed.**" in text


@settings(max_examples=20, deadline=None)
@given(text=st.one_of(st.text(min_size=1), st.text("|`*_[]()<>#@!\\\n\r~$:-w.", min_size=1)))
def test_no_string_breaks_a_table_or_becomes_markup(
    any_text: Callable[..., Result], text: str
) -> None:
    """Pipes, newlines, backticks and tags stay what they are."""
    summary = render_markdown(any_text(text))
    assert check_tables(summary) >= 2
    tags = set(re.findall(r"<(?!!-- -->)/?([a-z]*)", summary))
    assert tags <= {"br", "code", "sub"}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a|b", "a&#124;b"),
        ("*bold*", r"\*bold\*"),
        ("[x](http://e)", r"\[x\](http&#58;//e)"),
        ("<img>", "&lt;img&gt;"),
        ("&amp;", "&amp;amp;"),
        ("two\nlines", "two↵lines"),
        ("@team", "@<!-- -->team"),
        ("pass@1", "pass@1"),
        ("fixes #12", "fixes #<!-- -->12"),
        ("www.evil.example", "www&#46;evil.example"),
        ("# title", r"\# title"),
        ("1. item", r"1\. item"),
        (":tada:", "&#58;tada:"),
        ("2026-11-23T20:16", "2026-11-23T20:16"),
        ("a\\", "a\\\\"),
    ],
)
def test_markdown_reads_every_character_as_itself(raw: str, expected: str) -> None:
    """No link, mention, issue, emoji, heading or list comes from a name."""
    assert escape(raw) == expected
