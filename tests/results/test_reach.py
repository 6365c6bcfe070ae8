"""What verdicts do not show: the rare fault behind a mean, and harm behind a tiny divergence."""

from __future__ import annotations

from typing import Any

import pytest
from scipy.stats import binom

from evalharness.report import render_html, render_markdown, text_summary
from evalharness.results.reach import near_lossless, unseen
from evalharness.spec.estimate import Estimate, Scope, Verdict
from evalharness.spec.result import GateResult
from tests.report.conftest import INTERNALS, make_result
from tests.report.page import Page


def passed(
    id: str, metric: str, scope: Scope | None = None, verdict: Verdict = "PASS"
) -> GateResult:
    return GateResult(id=id, metric=metric, verdict=verdict, observed=0.0, scope=scope or {})


def estimate(metric: str, clusters: int, **more: Any) -> Estimate:
    return Estimate(id=metric, value=0.0, clusters=clusters, **more)


@pytest.mark.parametrize("documents", [2, 30, 149, 4000])
def test_so_many_documents_may_hold_none_of_the_faulty(documents: int) -> None:
    """At the share that is named none is drawn one time in twenty; it is about 3/G."""
    found = unseen([passed("g", "kl.mean")], [estimate("kl.mean", documents)])
    assert found is not None
    assert binom.pmf(0, documents, found.share) == pytest.approx(0.05)
    assert documents < 30 or found.share == pytest.approx(3 / documents, rel=0.06)


def test_the_gate_with_the_fewest_documents_is_the_one_that_is_told() -> None:
    """It leaves most open."""
    whole, part = estimate("kl.mean", 149), estimate("nll.shift", 20, scope={"slice": "code"})
    gates = [passed("a", "kl.mean"), passed("b", "nll.shift", {"slice": "code"})]
    found = unseen(gates, [whole, part])
    assert found is not None
    assert (found.documents, found.scope, found.gates) == (20, {"slice": "code"}, ["a", "b"])


@pytest.mark.parametrize(
    "gate",
    [
        passed("g", "kl.mean", verdict="INCONCLUSIVE"),
        passed("g", "kl.exceed_rate", {"bound": "0.2"}),  # which does see it
        passed("g", "task.score.shift", {"task": "arc", "metric": "acc"}),  # items, not texts
        passed("g", "memory.weights.ratio"),
        passed("g", "of.another.package"),
    ],
)
def test_only_a_pass_of_a_mean_over_documents_leaves_it_open(gate: GateResult) -> None:
    """What did not pass, or is no such mean, says nothing of it."""
    assert unseen([gate], [estimate(gate.metric, 149, scope=gate.scope)]) is None


def test_a_kl_near_rounding_names_the_gates_that_decide() -> None:
    """By its upper end, against the larger of a fixed level and ten noise floors."""
    gates = [passed("kl", "kl.mean"), passed("ppl", "perplexity.ratio", verdict="FAIL")]
    gates += [passed("arc", "task.score.shift", {"task": "arc"})]
    found = near_lossless(gates, [estimate("kl.mean", 30, low=0.001, high=0.004)])
    assert found is not None
    assert (found.limit, found.gates) == (0.005, ["ppl", "arc"])
    above = {"low": 0.006, "high": 0.01}
    assert near_lossless(gates, [estimate("kl.mean", 30, **above)]) is None
    assert near_lossless(gates, [estimate("kl.mean", 30, **above, noise_floor=0.002)]) is not None
    assert near_lossless(gates, [estimate("kl.mean", 1)]) is None


RULES = """\
version: 1
defaults: {min_n: 2}
gates:
  - {id: spread, metric: kl.mean, max: 1}
  - {id: also, metric: top1.agreement, min: 1%}
"""


def test_every_reader_is_told_once() -> None:
    """Not once a gate; and of gates on signed metrics, that there are none."""
    r = make_result(rules=RULES, damage=0.02, without=INTERNALS)
    assert [g.verdict for g in r.gates] == ["PASS", "PASS"]
    for text in (Page(render_html(r)).text, render_markdown(r), text_summary(r)):
        text = " ".join(text.split())
        assert text.count("may not show in 12 documents: no mean sees what was not drawn") == 1
        assert text.count("A fault in fewer than 22% of texts") == 1
        assert text.count("no gate on a signed metric decides here") == 1


def test_nothing_is_said_where_nothing_passed() -> None:
    """A FAIL, and a KL that is far from the noise floor."""
    r = make_result(rules=RULES.replace("max: 1}", "max: 1e-3}").replace("1%", "100%"), damage=0.4)
    assert (r.unseen, r.near_lossless) == (None, None)
    for text in (render_html(r), render_markdown(r), text_summary(r)):
        assert "no mean sees" not in text
        assert "near-lossless" not in text
