"""Tasks brought together: the groups of lm-eval, and all tasks of a suite."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import pandas as pd

from evalharness.metrics.numbers import finite
from evalharness.run.records import SAME_TEXT

EVERY = "all"  # the group of all tasks that a suite names


@dataclass(frozen=True)
class TaskGroup:
    """A mean over tasks of one lm-eval metric.

    Attributes
    ----------
    weights : of the score of each leaf task, with sum 1.
    members : what the mean is taken over: leaves, or for all tasks of a suite what it names.
    reference, candidate : the score of either side; None where a leaf has none.

    """

    name: str
    metric: str
    weights: Mapping[str, float]
    members: tuple[str, ...]
    reference: float | None
    candidate: float | None
    higher_is_better: bool


Groups = dict[tuple[str, str], TaskGroup]  # by name and metric


def task_groups(tasks: pd.DataFrame, groups: pd.DataFrame) -> Groups:
    """The groups of a run, from the records `run.records.TASKS` and `GROUPS`."""
    found: Groups = {}
    for row in groups.to_dict("records"):
        weights = row.get("weights")
        if weights is None:
            continue  # a run from before they were recorded: its leaves stand for themselves
        leaves = {str(n): float(w) for n, w in zip(row["leaves"], weights, strict=True) if w > 0}
        one = _group(row, leaves)
        found[one.name, one.metric] = one
    scores = tasks.to_dict("records")
    own = {name for name, _ in found} | {row["task"] for row in scores}
    if EVERY not in own:
        for metric in dict.fromkeys(str(row["metric"]) for row in scores):
            whole = _every(metric, found, [row for row in scores if row["metric"] == metric])
            if whole is not None:
                found[EVERY, metric] = whole
    return found


def _group(row: Mapping[Any, Any], weights: dict[str, float]) -> TaskGroup:
    return TaskGroup(
        name=str(row["task"]),
        metric=str(row["metric"]),
        weights=weights,
        members=tuple(weights),
        reference=finite(row["reference"]),
        candidate=finite(row["candidate"]),
        higher_is_better=bool(row["higher_is_better"]),
    )


def _every(metric: str, groups: Groups, scores: Sequence[Mapping[Any, Any]]) -> TaskGroup | None:
    """The plain mean over what a suite names: a group counts as one. None: it names but one."""
    own = {name: group for (name, m), group in groups.items() if m == metric}
    alone = {str(row["task"]): _group(row, {str(row["task"]): 1.0}) for row in scores}
    members, weights = whole_suite({n: g.weights for n, g in own.items()}, list(alone))
    units = [own.get(name) or alone[name] for name in members]
    if len(units) < 2 or len({unit.higher_is_better for unit in units}) > 1:
        return None
    sides = [[getattr(u, side) for u in units] for side in ("reference", "candidate")]
    means = [None if None in side else sum(side) / len(side) for side in sides]
    return TaskGroup(
        name=EVERY,
        metric=metric,
        weights=weights,
        members=tuple(members),
        reference=means[0],
        candidate=means[1],
        higher_is_better=units[0].higher_is_better,
    )


def whole_suite(
    groups: Mapping[str, Mapping[str, float]], tasks: Sequence[str]
) -> tuple[list[str], dict[str, float]]:
    """What a suite names, groups first, and the weight of each task in the plain mean over that.

    Parameters
    ----------
    groups : the weights of the tasks in each group.
    tasks : all that there are.

    """
    names = list(groups)
    outer = [names[k] for k in outermost([set(own) for own in groups.values()])]
    taken = {leaf for name in outer for leaf in groups[name]}
    alone = [task for task in tasks if task not in taken]
    weights: dict[str, float] = {}
    for own in (*(groups[name] for name in outer), *({task: 1.0} for task in alone)):
        for leaf, weight in own.items():
            weights[leaf] = weights.get(leaf, 0.0) + weight / (len(outer) + len(alone))
    return [*outer, *alone], weights


def outermost(leaves: Sequence[AbstractSet[str]]) -> list[int]:
    """Which of these sets of leaves lie in no other; of equal ones the last."""
    return [
        k
        for k, own in enumerate(leaves)
        if not any(own < other or (own == other and k < j) for j, other in enumerate(leaves))
    ]


def together(sources: Sequence[Iterable[Hashable]]) -> list[int]:
    """Number what shares a source, directly or through others, alike."""
    labels = list(range(len(sources)))
    owner: dict[Hashable, int] = {}
    for number, own in enumerate(sources):
        for source in own:
            old, new = labels[owner.setdefault(source, number)], labels[number]
            if old != new:
                labels = [old if label == new else label for label in labels]
    return labels


def sharing(items: pd.DataFrame, known: Sequence[Sequence[str]] | None) -> dict[str, Hashable]:
    """By task, what is equal where tasks share items or passages.

    Parameters
    ----------
    items : the records `run.records.ITEMS`.
    known : tasks that share documents, as the manifest has them; None: it does not say, so that
        all may.

    """
    names = [str(name) for name in items["task"].unique()]
    if known is None:
        return dict.fromkeys(names, 0)
    pairs = items.loc[items["cluster"].str.contains(":", regex=False), ["task", "cluster"]]
    pairs = pairs[~pairs["cluster"].str.startswith(f"{SAME_TEXT}:")].drop_duplicates()
    passages = pairs.groupby("task")["cluster"].apply(set).to_dict()
    sources: list[set[Hashable]] = [
        {*passages.get(name, ()), *(number for number, own in enumerate(known) if name in own)}
        for name in names
    ]
    return dict(zip(names, together(sources), strict=True))
