"""Scores of groups, from those of their leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evalharness.pair.tasks.scores import group_scores
from tests.pair.tasks.lm_sides import TASKS, prepare, run
from tests.pair.tasks.test_lm_eval_scores import plain_lm_eval


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


def test_a_groups_scores_are_those_that_lm_eval_reports(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command's ``groups``, on either side."""
    monkeypatch.chdir(TASKS)  # where lm-eval itself finds the task's relative data_files
    scores = [s for t in run(*pair, "both.yaml") for s in t.scores]
    (group,) = group_scores(prepare("both.yaml"), scores)
    expected = [plain_lm_eval(side, "both", 2)["groups"]["both"] for side in pair]
    assert [e["acc,none"] for e in expected] == [group.reference, group.candidate]
