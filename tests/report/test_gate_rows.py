"""Gates as rows: what is folded is counted, and all of them are told in words."""

from __future__ import annotations

from collections.abc import Callable

from evalharness.report import gate_rows, render_html, render_markdown, text_summary
from evalharness.spec.result import Result

from .conftest import INTERNALS
from .page import Page

LIGHT = ("tokens", "items", "item_tokens", "tasks", *INTERNALS)


def every_layer(most: float) -> str:
    """A policy with a gate for every module that is not a block."""
    scope = "{layer: '**.*_proj'}"
    gate = f"{{metric: layer.error.own, scope: {scope}, max: {most}, each: true}}"
    return f"version: 1\ngates: [{gate}]\n"


def test_dozens_of_passing_gates_are_folded_and_counted(result: Callable[..., Result]) -> None:
    """What is not a PASS always stays in sight."""
    r = result("FAIL", blocks=4, rules=every_layer(0.15), without=LIGHT)
    rows, folded = gate_rows.fold(gate_rows.gate_rows(r))
    assert (len(rows), len(folded)) == (12, 16)
    assert rows[0].gate.scope == {"layer": "model.layers.3.mlp.down_proj"}
    assert [row.gate.verdict for row in rows[1:]] == ["PASS"] * 11
    name = folded[-1].gate.scope["layer"]
    for text in (Page(render_html(r)).text, render_markdown(r), text_summary(r)):
        assert "16 more gates, all PASS" in text
    gates = render_html(r).partition("</section>")[0]
    assert name in gates
    assert name not in render_markdown(r)


def test_a_few_gates_are_never_folded(result: Callable[..., Result]) -> None:
    """A fold that hides two rows only costs a click."""
    rows = gate_rows.gate_rows(result("FAIL", blocks=2, rules=every_layer(0.15), without=LIGHT))
    assert len(rows) == 14
    assert gate_rows.fold(rows)[1] == []


def test_gates_are_counted_in_words(result: Callable[..., Result], bare: Result) -> None:
    """With what is waived."""
    assert (
        gate_rows.tally(result("FAIL"))
        == "6 gates: 3 PASS, 1 INCONCLUSIVE, 2 FAIL (1 waived, 1 not blocking)"
    )
    assert gate_rows.tally(bare) == "1 gate: 1 INCONCLUSIVE"
    # A policy has a gate at least: only a result.json that something else has written.
    assert gate_rows.tally(bare.model_copy(update={"gates": []})) == "no gate was applied"


def test_the_tally_says_how_many_do_not_block(result: Callable[..., Result]) -> None:
    """So that it agrees with a headline that counts those that do."""
    r = result("FAIL")
    failing = next(g for g in r.gates if g.verdict == "FAIL" and g.blocking)
    aside = failing.model_copy(update={"blocking": False, "severity": "warn"})
    found = gate_rows.tally(r.model_copy(update={"gates": [failing, aside]}))
    assert found == "2 gates: 2 FAIL (1 not blocking)"
