"""lm-eval's scores of a task on both sides, and of the groups that bring tasks together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from evalharness.compat import lm_eval
from evalharness.compat.silence import quiet
from evalharness.data.items import PreparedTask, PreparedTasks
from evalharness.pair.tasks.item_rows import Paired, Scored, metric_name


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """lm-eval's aggregate of one metric on both sides, as in `records.TASKS`; None: it has none."""

    task: str
    metric: str
    reference: float | None
    candidate: float | None
    higher_is_better: bool
    num_fewshot: int | None


@dataclass(frozen=True, kw_only=True)
class GroupScore(TaskScore):
    """The same of a group, as in `records.GROUPS`; ``task`` is the group's name."""

    items: int  # of all leaves that have the metric
    leaves: list[str]
    weights: list[float]  # of each leaf's score; 0 where it does not have the metric


def task_scores(
    task: PreparedTask, paired: Paired, reference: Scored, candidate: Scored
) -> tuple[TaskScore, ...]:
    """One a metric. A side that gave NaN or infinite answers has no score."""

    def of(number: int, key: str) -> float | None:
        side = (reference, candidate)[number]
        return None if paired.unusable[number] else _number(side.scores.get(key))

    return tuple(
        TaskScore(
            task=task.name,
            metric=metric_name(metric, filter_name),
            reference=of(0, f"{metric},{filter_name}"),
            candidate=of(1, f"{metric},{filter_name}"),
            higher_is_better=lm_eval.higher_is_better(task.task, metric),
            num_fewshot=task.num_fewshot,
        )
        for metric, filter_name in paired.metrics
    )


def group_scores(prepared: PreparedTasks, scores: Iterable[TaskScore]) -> tuple[GroupScore, ...]:
    """lm-eval's aggregates of its groups, from the scores of their leaf tasks.

    Separate from the pass because the leaves of a resumed run come partly from its records. A
    group of which a leaf is missing is left out; of which a leaf has no score, it has none.
    """
    items = {t.name: t.items for t in prepared.tasks}
    found: dict[str, dict[str, TaskScore]] = {}
    for score in scores:
        found.setdefault(score.task, {})[_key(score.metric)] = score
    groups: list[GroupScore] = []
    for group in prepared.groups.values():
        leaves = lm_eval.group_leaves(group)
        if not leaves or any(name not in found for name in leaves):
            continue
        with quiet():
            sides = [
                lm_eval.aggregate_group(
                    group,
                    {n: {k: getattr(s, side) for k, s in found[n].items()} for n in leaves},
                    items,
                )
                for side in ("reference", "candidate")
            ]
        for key in sides[0]:
            parts = [found[name][key] for name in leaves if key in found[name]]
            whole = all(p.reference is not None and p.candidate is not None for p in parts)
            reference, candidate = (_number(side[key]) if whole else None for side in sides)
            having = {p.task: items[p.task] for p in parts}
            weights = lm_eval.group_weights(group, key, having)
            groups.append(
                GroupScore(
                    task=group.name,
                    metric=metric_name(*key.split(",", 1)),
                    reference=reference,
                    candidate=candidate,
                    higher_is_better=parts[0].higher_is_better,
                    num_fewshot=parts[0].num_fewshot,
                    items=sum(items[p.task] for p in parts),
                    leaves=leaves,
                    weights=[weights.get(name, 0.0) for name in leaves],
                )
            )
    return tuple(groups)


def _number(value: Any) -> float | None:
    """lm-eval's aggregate as a number; None for NaN, "N/A" and whatever else it returns."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    return float(value) if math.isfinite(float(value)) else None


def _key(metric: str) -> str:
    return metric if "," in metric else f"{metric},{lm_eval.NO_FILTER}"
