"""The next candidate against the run of the last, with whole comparisons of tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalharness.workflow.compare import compare
from tests.cli.command import cli
from tests.workflow.jobs import job

pytestmark = pytest.mark.e2e


def test_the_next_candidate_is_judged_by_its_differences(project: Path) -> None:
    """The same one keeps to within a hundredth, which its own interval could not show."""
    _, first = compare(job(project, "first"))
    stored = project / "stored.json"
    assert cli("baseline", "save", first.path, "--to", stored)[0] == 0
    assert stored.stat().st_size < 200_000
    (project / "next.yaml").write_text(
        "baseline: stored.json\ndefaults: {min_n: 2}\ngates:\n"
        "  - {metric: kl.mean, max: 1%, relative_to: baseline}\n"
        "  - {metric: perplexity.ratio, max: 0.01, relative_to: baseline}\n"
    )
    (project / "worse.yaml").write_text(
        "from: candidate.yaml\nname: int3\nsimulate: {weights: {bits: 3, granularity: channel}}\n"
    )
    again, _ = compare(job(project, "again", gates=project / "next.yaml"))
    assert (again.verdict, again.exit_code) == ("PASS", 0)
    kl = next(m for m in again.metrics if m.id == "kl.mean" and not m.scope)
    assert kl.high is not None
    assert kl.value is not None
    assert kl.high > 1.01 * kl.value
    worse, run = compare(job(project, "worse", candidate="worse.yaml", gates=project / "next.yaml"))
    assert worse.verdict == "FAIL"
    assert "by the difference in each of 12 documents that both runs have" in worse.gates[0].reason
    code, out, _ = cli("gate", run.path, "--format", "json")
    assert (code, json.loads(out)["verdict"]) == (1, "FAIL")
    assert "paired" in cli("baseline", "show", stored)[1]
