"""The result arranged for reading: what is folded, left out or looked up, and that it is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evalharness.report import chart_data, render_html, render_markdown, tables, text_summary
from evalharness.spec.result import Figures, GateResult, Result

from .page import Page


def many(result: Callable[..., Result], passing: int) -> Result:
    """A result whose policy has a gate for every layer, the last of which fails."""
    gates = [
        GateResult(id=f"g{k}", metric="layer.error.own", verdict="PASS", observed=0.1, threshold=1)
        for k in range(passing)
    ]
    gates.append(
        GateResult(id="last", metric="layer.error.own", verdict="FAIL", observed=2, threshold=1)
    )
    return result("FAIL", gates=gates, blocks=0, figures=Figures())


def test_hundreds_of_passing_gates_are_folded_and_counted(result: Callable[..., Result]) -> None:
    """What is not a PASS always stays in sight."""
    r = many(result, 200)
    rows, folded = tables.fold(tables.gate_rows(r))
    assert (len(rows), len(folded)) == (12, 189)
    assert rows[0].gate.id == "last"
    for text in (Page(render_html(r)).text, render_markdown(r), text_summary(r)):
        assert "189 more gates, all PASS" in text
    assert "g199" in render_html(r)
    assert "g199" not in render_markdown(r)


def test_a_few_gates_are_never_folded(result: Callable[..., Result]) -> None:
    """A fold that hides two rows only costs a click."""
    assert tables.fold(tables.gate_rows(many(result, 14)))[1] == []


def test_a_document_without_a_number_is_not_drawn_and_counted(
    result: Callable[..., Result],
) -> None:
    """NaN, null and absent are neither 0 nor lost in silence."""
    documents = [
        {"document": "a", "corpus": "x", "tokens": 10, "shift": 0.1, "kl": 0.2},
        {"document": "b", "corpus": "x", "tokens": None, "shift": 0.3},
        {"document": "c", "corpus": "x", "shift": float("nan")},
        {"document": "d", "corpus": "x", "shift": None},
        {"document": "e"},
    ]
    drawn = Figures(nll_by_document=documents)
    found, without = chart_data.points(drawn)
    assert ([d.name for d in found], without) == (["b", "a"], 3)
    text = Page(render_html(result("PASS", blocks=0, figures=drawn))).text
    assert "3 documents without a number not drawn" in text


def test_corpora_keep_the_order_of_the_suite(result: Callable[..., Result]) -> None:
    """Not the alphabet's, and not that of the damage."""
    assert [row.corpus for row in chart_data.documents(result("PASS"))] == ["pydoc", "wiki", "mine"]


def test_estimates_of_a_task_stand_with_the_tasks_alone(result: Callable[..., Result]) -> None:
    """And are shown even where no task's scores are."""
    r = result("PASS", blocks=0, figures=Figures(), tasks=[], flipped=[])
    for group in tables.families(r, ("calibration",)):
        assert not [e for e in group.scoped if "task" in e.scope]
    html = render_html(r)
    section = html[html.index('<section id="tasks">') :]
    assert "Other metrics of the tasks: 27 estimates" in section


def test_layer_metrics_are_shown_where_the_rows_of_the_layers_are_not(
    result: Callable[..., Result],
) -> None:
    """A gate on them would otherwise have no evidence on the page."""
    html = render_html(result("PASS", layers=[], figures=Figures()))
    assert "Layers by scope: 95 estimates" in html


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"reference.load": 1.0, "candidate.load": 2.0}, ([("load", 1.0, 2.0)], {})),
        ({"load.reference": 1.0}, ([("load", 1.0, None)], {})),
        ({"statistics": 3.0, "candidate": 1.0}, ([], {"statistics": 3.0, "candidate": 1.0})),
    ],
)
def test_costs_of_both_sides_stand_beside_each_other(
    values: dict[str, float], expected: object
) -> None:
    """A side that was not measured is a gap; what has no side stays as it is."""
    assert tables.by_side(values) == expected


def test_calibration_errors_are_found_by_the_name_of_their_scope(
    result: Callable[..., Result],
) -> None:
    """Over everything, and a task by its name; none is invented."""
    everything, task = chart_data.reliabilities(result("PASS"))
    assert sorted(everything.errors) == ["candidate", "reference"]
    assert (task.name, task.errors) == ("mmlu_dev_cloze", {})


def test_gates_are_counted_in_words(result: Callable[..., Result], bare: Result) -> None:
    """With what is waived."""
    assert tables.tally(result("FAIL")) == "6 gates: 3 PASS, 1 INCONCLUSIVE, 2 FAIL (1 waived)"
    assert tables.tally(bare) == "no gate was applied"
