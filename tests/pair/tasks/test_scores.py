"""Scores of groups, from those of their leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evalharness.pair.tasks.scores import group_scores
from tests.pair.tasks.lm_sides import prepare, run


def test_a_group_has_lm_evals_aggregate_of_its_leaves(pair: tuple[Any, Any]) -> None:
    """Weighted by size, from the leaves' scores alone, so that a resumed run has it too."""
    scores = [s for t in run(*pair, "both.yaml", limit=4) for s in t.scores]
    prepared = prepare("both.yaml", limit=4)
    acc = {s.task: s for s in scores if s.metric == "acc"}
    (group,) = group_scores(prepared, scores)
    assert (group.task, group.metric, group.items) == ("both", "acc", 8)
    assert group.leaves == ["choose", "finish"]
    assert group.reference == (acc["choose"].reference + acc["finish"].reference) / 2

    undefined = [replace(s, candidate=None) for s in scores]
    (group,) = group_scores(prepared, undefined)
    assert group.candidate is None
    assert group_scores(prepared, [s for s in scores if s.task == "choose"]) == ()
