"""Sides whose tokenizers are two: what is too short for either, and what either would read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalharness.cli.dry_run import describe
from evalharness.errors import InputError
from evalharness.pair.compatible import MEND
from evalharness.workflow.compare import compare
from evalharness.workflow.own_tokens import check_own_tokens
from tests.conftest import TEXT, tiny_tokenizer
from tests.pair.texts.test_two_tokenizers import words
from tests.workflow.jobs import job

LONG = "Pneumonoultramicroscopicsilicovolcanoconiosis"


def planned(project: Path, tiny: Any, texts: list[str]) -> Any:
    """A comparison of these texts with a candidate that reads words."""
    words().save_pretrained(project / "words")
    (project / "words.yaml").write_text(
        f"name: words\nmodel: {{path: {tiny(1, vocab_size=40)}, dtype: float32, device: cpu, "
        f"tokenizer: {project}/words}}\n"
    )
    rows = "".join(json.dumps({"text": text, "kind": "odd"}) + "\n" for text in texts)
    (project / "texts.jsonl").write_text(rows)
    suite = project / "suite.yaml"
    text = suite.read_text().replace("[layers]\nlayers: {windows: 4}", "[latency]")
    suite.write_text(text + "tokenizers: different\n")
    (project / "gates.yaml").write_text(
        "gates: [{metric: bits_per_byte.shift, max: 100, min_n: 2}]\n"
    )
    return job(project, candidate="words.yaml")


def test_a_corpus_too_short_for_the_candidate_is_refused_before_anything_is_loaded(
    project: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two tokenizers are all it takes."""
    plan = planned(project, tiny, [LONG, LONG[:20]])
    monkeypatch.setattr("evalharness.engines.loading.load", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(InputError, match="no document of 2 tokens or more as words reads it"):
        compare(plan)
    assert not (project / "run").exists()


def test_what_is_too_short_for_the_candidate_is_counted_and_the_rest_is_measured(
    project: Path, tiny: Any
) -> None:
    """The dry run says so as well; the gate passes on what is left.

    The candidate's smaller vocabulary is no hindrance to timing it.
    """
    plan = planned(project, tiny, [TEXT[i : i + 60] for i in range(8)] + [LONG, LONG[:20]])
    said = "2 documents are too short to score in the tokens of words, and left out of both sides"
    assert check_own_tokens(plan) == [said]
    assert f"  {said}" in describe([plan])
    result, run = compare(plan)
    assert said in run.manifest["warnings"]
    (shift,) = (m for m in result.metrics if m.id == "bits_per_byte.shift")
    assert shift.clusters == 8
    assert result.verdict == "PASS"
    assert len(run.table("timings")) == 16  # prefill and decoding of eight batches
    assert {r["bytes_ref"] > 0 for r in run.table("documents").to_pylist()} == {True}


def test_a_candidate_that_shipped_without_its_bos_is_anomalous(project: Path, tiny: Any) -> None:
    """Fed as the reference is, the same weights differ in nothing; used, they read other tokens."""
    for name, bos in (("base", True), ("bare", False)):
        tiny_tokenizer(bos=bos).save_pretrained(project / name)
        (project / f"{name}.yaml").write_text(
            f"name: {name}\nmodel: {{path: {tiny()}, dtype: float32, device: cpu, "
            f"tokenizer: {project / name}}}\n"
        )
    rows = [f"<eos>{TEXT[:60]}", TEXT[5:70], TEXT[7:80], TEXT[9:90]]
    text = "".join(json.dumps({"text": row, "kind": "odd"}) + "\n" for row in rows)
    (project / "texts.jsonl").write_text(text)
    suite = project / "suite.yaml"
    suite.write_text(suite.read_text().replace("probes: [layers]\nlayers: {windows: 4}\n", ""))
    (project / "gates.yaml").write_text("gates:\n  - {metric: kl.mean, max: 1, min_n: 2}\n")
    plan = job(project, candidate="bare.yaml")
    said = (
        "by the tokenizer of bare, which is not that of base, no BOS comes before a text, where "
        f"that of base puts the BOS '<eos>'. Both sides were fed the tokens of base. {MEND}"
    )
    own = "1 document begins with the BOS token (0) already, and no second one is put before it"
    assert {f"  ANOMALOUS: {said}", f"  {own}"} <= set(map(str, describe([plan])))
    result, run = compare(plan)
    assert [a.message for a in result.anomalies] == [said]
    assert result.verdict == "ANOMALOUS"
    assert own in run.manifest["warnings"]
    (kl,) = (m for m in result.metrics if m.id == "kl.mean" and not m.scope)
    assert kl.value == 0
