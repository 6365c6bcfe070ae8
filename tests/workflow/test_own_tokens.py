"""Sides that read tokens of their own: what is too short for either, said before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalharness.cli.dry_run import describe
from evalharness.errors import InputError
from evalharness.workflow.compare import compare
from evalharness.workflow.own_tokens import check_own_tokens
from tests.conftest import TEXT
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
    (project / "gates.yaml").write_text("gates:\n  - {metric: bits_per_byte.shift, max: 100}\n")
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
    assert len(run.table("timings")) == 8
    assert {r["bytes_ref"] > 0 for r in run.table("documents").to_pylist()} == {True}
