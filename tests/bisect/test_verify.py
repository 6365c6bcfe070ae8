"""A repair held against the policy on held-out documents, with and without a model file."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalharness.bisect.keep_lists import repair_spec, spec_text
from evalharness.bisect.prepare import opened_for_bisect, prepared
from evalharness.bisect.verify import held_out_decision, repaired_decision
from evalharness.progress import Progress
from evalharness.workflow.compare import compare
from tests.workflow.jobs import job


def test_the_repaired_model_passes_where_the_candidate_fails(project: Path) -> None:
    """By its own file and in memory alike: every module restored is the reference."""
    _, finished = compare(job(project))
    with opened_for_bisect(finished.path, None) as (run, suite, policy):
        work = prepared(run, suite, policy, "cpu", Progress())
        given = (run, suite, policy, work.sides, work.sample)
        assert held_out_decision(*given).verdict == "FAIL"
        made = {"chosen": work.pairs, "pairs": work.pairs}
        decision, bits, skipped, notes = repaired_decision(*given, spec=None, **made)
        assert decision.verdict == "PASS"
        assert (skipped, notes) == ([], [])
        assert bits == pytest.approx(work.sides[0].loaded.manifest.bits_per_weight)
        kept = [n for p in work.pairs for n in p.candidate_names]
        spec, why = repair_spec(work.specs[1], kept[:-1], work.sides[1].head_name)
        assert (spec is None, why) == (False, "")
        run.write_text("repair.yaml", spec_text(spec, []))
        chosen = work.pairs[:-1]
        decision, fewer, _, notes = repaired_decision(
            *given, spec=spec, chosen=chosen, pairs=work.pairs
        )
        assert notes == []
        assert decision.verdict != "PASS"
        assert fewer < bits
