"""After a FAIL: the gate, the likely cause and two commands, the same in every form."""

from __future__ import annotations

import html
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from evalharness.report import next_step, render_html, render_markdown
from evalharness.spec.result import Result

from .page import check_harmless

RUN = Path("my runs/a b")


def test_a_fail_names_the_gate_the_cause_and_what_to_type(result: Callable[..., Result]) -> None:
    """The commands are typed as they stand, whatever the run is called."""
    r = result("FAIL")
    step = next_step(r, RUN)
    assert step is not None
    failing = [g for g in r.gates if g.verdict == "FAIL" and g.blocking and g.waiver is None]
    assert step.gate.startswith(failing[0].id)
    assert "model.layers." in step.cause
    explain, other = map(shlex.split, step.commands)
    assert explain == ["evalharness", "explain", failing[0].rule or failing[0].id, str(RUN)]
    assert other[:1] + other[-1:] == ["evalharness", str(RUN)]


def test_the_page_and_the_summary_say_the_same(result: Callable[..., Result]) -> None:
    """In the banner, and before the table of gates."""
    r = result("FAIL")
    step = next_step(r, RUN)
    assert step is not None
    page = check_harmless(render_html(r, RUN)).text
    unescaped = render_markdown(r, RUN).replace("\\", "").replace("<!-- -->", "")
    summary = html.unescape(unescaped)
    for text in (step.gate, step.cause, *step.commands):
        assert text in page
        assert text in summary
    assert page.index(step.commands[0]) < page.index("Interval against limit")
    assert summary.index(step.commands[0]) < summary.index("| Verdict |")


@pytest.mark.parametrize("verdict", ["PASS", "INCONCLUSIVE", "ANOMALOUS"])
def test_no_other_verdict_has_one(result: Callable[..., Result], verdict: str) -> None:
    """What is undecided says by itself how many documents it takes."""
    assert next_step(result(verdict), RUN) is None


@pytest.mark.parametrize(
    ("metric", "command"), [("weights.bits_per_weight", "show"), ("kl.mean", "bisect")]
)
def test_a_search_is_proposed_where_it_can_help(
    result: Callable[..., Result], metric: str, command: str
) -> None:
    """No set of modules makes a candidate smaller."""
    r = result("FAIL")
    failing = next(g for g in r.gates if g.verdict == "FAIL" and g.blocking and not g.waiver)
    alone = failing.model_copy(update={"metric": metric, "scope": {}})
    step = next_step(r.model_copy(update={"gates": [alone]}), RUN)
    assert step is not None
    assert step.commands[1] == f"evalharness {command} 'my runs/a b'"
