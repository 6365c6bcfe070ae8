"""Tasks of a result: lm-eval's scores on both sides, and the items that changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from evalharness.metrics import Evidence
from evalharness.metrics.numbers import finite
from evalharness.metrics.task_groups import EVERY, TaskGroup
from evalharness.spec.result import FlippedItem, TaskResult

SHOWN_FLIPS = 40


def tasks(evidence: Evidence) -> list[TaskResult]:
    """One row a task and lm-eval metric, then one a group and metric, then all tasks together."""
    items = evidence.items
    asked = evidence.run.manifest.get("task_prompts") or {}
    results = []
    for row in evidence.frame("tasks").to_dict("records"):
        own = items[(items["task"] == row["task"]) & (items["metric"] == row["metric"])]
        how: Mapping[str, Any] = asked.get(row["task"], {})
        results.append(
            TaskResult(
                items=len(own),
                chat_template=how.get("chat_template"),
                system=how.get("system"),
                **_aggregate(row),
                **_of_items(own),
            )
        )
    for row in evidence.frame("groups").to_dict("records"):
        leaves = [str(name) for name in row["leaves"]]
        changed = _changed(results, leaves, row["metric"])
        about = _aggregate(row) | changed
        results.append(TaskResult(items=int(row["items"]), leaves=leaves, **about))
    whole = [g for g in evidence.groups.values() if g.name == EVERY]
    return results + [_every(g, results) for g in whole if all(t.task != EVERY for t in results)]


def _every(group: TaskGroup, rows: list[TaskResult]) -> TaskResult:
    """The mean over all that the suite names, of one metric."""
    own = [t.items for t in rows if t.task in group.members and t.metric == group.metric]
    return TaskResult(
        task=group.name,
        metric=group.metric,
        reference=group.reference,
        candidate=group.candidate,
        higher_is_better=group.higher_is_better,
        items=sum(own),
        leaves=list(group.members),
        **_changed(rows, group.weights, group.metric),
    )


def _changed(
    rows: Iterable[TaskResult], leaves: Collection[str], metric: str
) -> dict[str, int | None]:
    """Items that changed either way in all of ``leaves``, where all are of right or wrong ones."""
    own = [t for t in rows if t.task in leaves and t.metric == metric and not t.leaves]
    found = {}
    for way in ("right_to_wrong", "wrong_to_right"):
        counts = [getattr(t, way) for t in own]
        found[way] = None if None in counts or not counts else sum(counts)
    return found


def _aggregate(row: Mapping[Any, Any]) -> dict[str, Any]:
    """What lm-eval says of both sides."""
    few = row["num_fewshot"]
    return {
        "task": row["task"],
        "metric": row["metric"],
        "reference": finite(row["reference"]),
        "candidate": finite(row["candidate"]),
        "higher_is_better": row["higher_is_better"],
        "num_fewshot": None if few is None or pd.isna(few) else int(few),
    }


def _of_items(own: pd.DataFrame) -> dict[str, Any]:
    """What was taken of a task's items: whether they are right or wrong, and what is one of them.

    A score is right or wrong where its name says so and every item scores 0 or 1; items share a
    passage where a field that holds one repeats (`pair.tasks.item_rows`).
    """
    if own.empty:
        return {}
    binary = bool(own["binary"].all())
    moved = own["score_cand"] - own["score_ref"]  # NaN where a side has no score: no flip
    fields = own["cluster"].str.partition(":")
    shared = fields[0][fields[1] == ":"]
    return {
        "binary": binary,
        "right_to_wrong": int((moved < 0).sum()) if binary else None,
        "wrong_to_right": int((moved > 0).sum()) if binary else None,
        "clusters": int(own["cluster"].nunique()),
        "clusters_by": str(shared.iloc[0]) if len(shared) else None,
    }


def flipped(evidence: Evidence) -> list[FlippedItem]:
    """Items that one side got right and the other wrong; those that broke come first."""
    items = evidence.items
    if items.empty:
        return []
    first = items.drop_duplicates(["task", "doc_id"])
    scored = first["score_ref"].notna() & first["score_cand"].notna()
    rows = first[first["binary"] & scored & (first["score_ref"] != first["score_cand"])]
    rows = rows.sort_values(["score_cand", "task", "doc_id"], kind="stable").head(SHOWN_FLIPS)
    return [
        FlippedItem(
            task=r["task"],
            item=str(r["doc_id"]),
            change="right→wrong" if r["score_ref"] > r["score_cand"] else "wrong→right",
            prompt=r["prompt"] or "",
            target=r["target"] or "",
            reference_answer=r["answer_ref"] or "",
            candidate_answer=r["answer_cand"] or "",
        )
        for r in rows.to_dict("records")
    ]
