"""Runs that stop before the last document, by a sequence or by planned looks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalharness.data.documents import read_texts
from evalharness.metrics import REGISTRY, Evidence
from evalharness.spec.suite import load_suite
from evalharness.workflow.compare import compare
from evalharness.workflow.seal import finish
from tests.workflow.jobs import job

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models


def _with_kinds(project: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(r) + "\n" for r in rows)
    (project / "texts.jsonl").write_text(text)
    suite = project / "suite.yaml"
    suite.write_text(
        suite.read_text().replace('- {name: odd, where: {kind: "odd"}}', "- {by: kind}")
    )
    return suite


def _many_documents(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """120 short documents in blocks of four, and a gate that a 2-bit copy clearly fails."""
    from tests.conftest import TEXT

    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 400)
    rows = [{"id": f"e{i}", "text": f"{i} " + (TEXT[i % 50 :] + TEXT)[:150]} for i in range(120)]
    (project / "texts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (project / "suite.yaml").write_text(
        f"name: many\ncorpora:\n  - {{name: texts, path: {project / 'texts.jsonl'}}}\n"
        "window: {tokens: 32}\n"
    )
    (project / "gates.yaml").write_text(
        "defaults: {min_n: 2}\ngates:\n  - {metric: top1.agreement, min: 99.9%}\n"
    )


def test_stopping_early_measures_less_and_says_so(
    project: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear failure is decided on a part of the documents, with the sequence's own interval."""
    _many_documents(project, monkeypatch)
    result, run = compare(job(project, stop_early=True))
    gate = result.gates[0]
    assert gate.verdict == "FAIL"
    agreement = next(m for m in result.metrics if m.id == "top1.agreement")
    assert agreement.method.endswith("at the width of an asymptotic confidence sequence")
    assert 30 <= agreement.clusters < 120
    assert any("of 120 documents were measured" in w for w in result.warnings)
    quantile = next(m for m in result.metrics if m.id == "kl.median")
    assert quantile.low is None
    assert "after stopping early" in (quantile.reason or "")
    again, _ = finish(run, job(project, "other").policy), None
    assert again.gates[0].low == gate.low


def test_a_slice_that_no_document_is_in_yet_stops_nothing(project: Path) -> None:
    """With --stop-early the first look may come before a value of the attribute does."""
    rows = [json.loads(line) for line in (project / "texts.jsonl").read_text().splitlines()]
    rows = [
        {**r, "id": f"{r['id']}.{k}", "text": f"{k} {r['text']}", "kind": "x"}
        for r in rows
        for k in range(4)
    ]
    texts, _ = read_texts(load_suite(_with_kinds(project, rows)))
    last = {text.id.rpartition(":")[2] for text in texts[-2:]}
    rows = [{**r, "kind": "rare" if r["id"] in last else "x"} for r in rows]
    _with_kinds(project, rows)
    (project / "gates.yaml").write_text(
        "defaults: {min_n: 2}\n"
        "gates:\n  - {metric: nll.shift, scope: {slice: kind=rare}, max: 9, severity: warn}\n"
        "  - {metric: nll.shift, max: 9}\n"
    )
    planned = replace(job(project, stop_early=True), block_tokens=64)
    result, _ = compare(planned)
    assert [g.verdict for g in result.gates] == ["INCONCLUSIVE", "PASS"]


def test_planned_looks_stop_early_and_stay_honest(
    project: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look that decided is reported, at its own confidence, for every metric, and again."""
    from evalharness import stats

    _many_documents(project, monkeypatch)
    result, run = compare(job(project, looks=5))
    gate = result.gates[0]
    assert gate.verdict == "FAIL"
    stop = run.manifest["stop_early"]
    assert (stop["rule"], stop["looks"]) == ("looks", 5)
    taken = stop["taken"]
    assert 1 <= len(taken) < 5
    assert taken == pytest.approx([k / 5 for k in range(1, len(taken) + 1)], abs=0.05)
    seen = round(taken[-1] * 120)
    assert any(f"{seen} of 120 documents were measured" in w for w in result.warnings)
    assert {m.clusters for m in result.metrics if m.id == "top1.agreement"} == {seen}

    evidence = Evidence(run)
    totals = REGISTRY["top1.agreement"].totals(evidence, {})
    level = stats.look_confidence(0.9, taken)
    expected = stats.rate_t(*totals, level)
    assert level > 0.9
    assert (gate.low, gate.high) == pytest.approx((expected.low, expected.high))
    shown = {m.id: m for m in result.metrics if m.scope == {}}
    look = f"O'Brien-Fleming look {len(taken)}"
    assert all(
        look in m.method
        for m in shown.values()
        if m.low is not None and m.low != m.high and not REGISTRY[m.id].deterministic
    )
    again = finish(run, job(project, "other").policy)
    assert (again.gates[0].low, again.gates[0].high) == (gate.low, gate.high)


def test_undecided_looks_measure_everything(
    project: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few tokens for a p99.9: five looks, the last at all documents, nothing left out."""
    _many_documents(project, monkeypatch)
    (project / "gates.yaml").write_text(
        "defaults: {min_n: 2}\ngates:\n  - {metric: kl.p999, max: 1000}\n"
    )
    result, run = compare(job(project, looks=5))
    taken = run.manifest["stop_early"]["taken"]
    assert (len(taken), taken[-1]) == (5, 1.0)
    assert not any("were measured" in w for w in result.warnings)
