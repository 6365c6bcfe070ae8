"""The result arranged for reading: what is folded, left out or looked up, and that it is said."""

from __future__ import annotations

from collections.abc import Callable

from evalharness.report import chart_data, render_html, render_markdown, tables, text_summary
from evalharness.spec.result import Result

from .page import Page


def every_layer(most: float) -> str:
    """A policy with a gate for every module that is not a block."""
    scope = "{layer: '**.*_proj'}"
    gate = f"{{metric: layer.error.own, scope: {scope}, max: {most}, each: true}}"
    return f"version: 1\ngates: [{gate}]\n"


def test_dozens_of_passing_gates_are_folded_and_counted(result: Callable[..., Result]) -> None:
    """What is not a PASS always stays in sight."""
    r = result("FAIL", blocks=8, rules=every_layer(0.15))
    rows, folded = tables.fold(tables.gate_rows(r))
    assert (len(rows), len(folded)) == (12, 44)
    assert rows[0].gate.scope == {"layer": "model.layers.7.mlp.down_proj"}
    assert [row.gate.verdict for row in rows[1:]] == ["PASS"] * 11
    name = folded[-1].gate.scope["layer"]
    for text in (Page(render_html(r)).text, render_markdown(r), text_summary(r)):
        assert "44 more gates, all PASS" in text
    gates = render_html(r).partition("</section>")[0]
    assert name in gates
    assert name not in render_markdown(r)


def test_a_few_gates_are_never_folded(result: Callable[..., Result]) -> None:
    """A fold that hides two rows only costs a click."""
    rows = tables.gate_rows(result("FAIL", blocks=2, rules=every_layer(0.15)))
    assert len(rows) == 14
    assert tables.fold(rows)[1] == []


def test_a_document_without_a_number_is_not_drawn_and_counted(
    result: Callable[..., Result], page: Callable[..., str]
) -> None:
    """One NaN costs its own document, and no other."""
    r = result("ANOMALOUS")
    found, without = chart_data.most_shifted(r)
    assert (len(found), without) == (71, 1)
    assert [d.shift for d in found] == sorted((d.shift for d in found), reverse=True)
    assert "1 document without a number is not drawn" in Page(page("ANOMALOUS")).text


def test_corpora_keep_the_order_of_the_suite(result: Callable[..., Result]) -> None:
    """Not the alphabet's, and not that of the damage."""
    assert [row.corpus for row in chart_data.documents(result("PASS"))] == ["pydoc", "wiki", "mine"]


def test_estimates_of_a_task_stand_with_the_tasks_alone(result: Callable[..., Result]) -> None:
    """And are shown even where no task's scores are."""
    r = result("FAIL", without=("tasks", "tokens", "layers"))
    for group in tables.families(r, ("calibration",)):
        assert not [e for e in group.scoped if "task" in e.scope]
    html = render_html(r)
    section = html[html.index('<section id="tasks">') :]
    of_tasks = [e for e in r.metrics if "task" in e.scope]
    assert len(of_tasks) > 30
    assert f"Other metrics of the tasks: {len(of_tasks)} estimates" in section


def test_layer_metrics_are_shown_where_the_rows_of_the_layers_are_not(
    result: Callable[..., Result],
) -> None:
    """A gate on them would otherwise have no evidence on the page."""
    # Fifteen weights, the module that has no counterpart, and a router.
    html = render_html(result("FAIL", without=("layers", "tokens")))
    assert "Layers by scope: 17 estimates" in html


def test_costs_of_both_sides_stand_beside_each_other(page: Callable[..., str]) -> None:
    """One row a quantity, and what both sides share below."""
    html = page("PASS")
    section = html[html.index('<section id="cost">') : html.index('<section id="environment">')]
    text = Page(section.partition("</section>")[0] + "</section>").text
    assert (
        "HeldReferenceCandidate weights12.6 GiB3.88 GiB peak of one batch14.0 GiB5.59 GiB" in text
    )
    assert "loading4.23 s tokens84.1 s tasks61.0 s peak of the process18.6 GiB" in text


def test_calibration_errors_are_found_by_the_name_of_their_scope(
    result: Callable[..., Result],
) -> None:
    """Over everything, and a task by its name; none is invented."""
    r = result("PASS")
    everything, *tasks = chart_data.reliabilities(r)
    assert everything.name == "next token"
    assert [t.name for t in tasks] == ["mmlu_dev_cloze", "arc_easy", "hellaswag"]
    for found in (everything, *tasks):
        assert sorted(found.errors) == ["candidate", "reference"]
    assert everything.errors["candidate"] == tables.find(r, "ece.candidate")


def test_gates_are_counted_in_words(result: Callable[..., Result], bare: Result) -> None:
    """With what is waived."""
    assert tables.tally(result("FAIL")) == "6 gates: 3 PASS, 1 INCONCLUSIVE, 2 FAIL (1 waived)"
    assert tables.tally(bare) == "1 gate: 1 INCONCLUSIVE"
    # A policy has a gate at least: only a result.json that something else has written.
    assert tables.tally(bare.model_copy(update={"gates": []})) == "no gate was applied"
