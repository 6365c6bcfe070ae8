"""Task scores: lm-eval's own on each side, the paired shift, and items that changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from evalharness import stats
from evalharness.metrics.clusters import Keys
from evalharness.metrics.evidence import Evidence, undefined
from evalharness.metrics.families import TASK
from evalharness.metrics.registry import Compute, Measured, Spread, Totals, metric
from evalharness.metrics.scope_keys import cluster_keys
from evalharness.metrics.scopes import GROUP_KEYS, sharing_data, task_scopes, with_groups
from evalharness.run.records import SAME_TEXT
from evalharness.spec.estimate import Scope
from evalharness.stats import Interval

_NO_MEAN = "lm-eval's aggregate is not a mean over items"
_LEAST = 10  # items: their scores are bounded, and what was not seen is in every interval


def _rows(evidence: Evidence, scope: Scope) -> pd.DataFrame:
    """Its items; those of a group with a ``weight`` each, 1 on average."""
    if "task" in scope:
        return evidence.items_of(scope["task"], scope["metric"])
    weights = evidence.groups[scope["group"], scope["metric"]].weights
    own = pd.concat([evidence.items_of(task, scope["metric"]) for task in weights])
    sizes = own["task"].value_counts()
    shares = own["task"].map({task: w / sizes[task] for task, w in weights.items()})
    # The first item of one task is not that of another.
    clusters = own["cluster"] + "@" + own["task"]
    return own.assign(weight=shares.astype(float) * len(own), cluster=clusters)


def _bad(rows: pd.DataFrame, confidence: float) -> Interval | None:
    missing = int((~np.isfinite(rows[["score_ref", "score_cand"]].to_numpy(float))).any(1).sum())
    if missing:
        return undefined(f"{missing} of {len(rows)} items have no finite score", confidence)
    return None


def _totals(
    of: Callable[[Evidence, Scope, pd.DataFrame], Any], evidence: Evidence, scope: Scope
) -> Totals:
    """Totals by cluster of what ``of`` gives each item, or why there are none."""
    rows = _rows(evidence, scope)
    bad = _bad(rows, 0.5)
    if bad is not None or rows.empty:
        return "no item was scored" if bad is None else str(bad.reason)
    codes, _ = pd.factorize(rows["cluster"])
    values = of(evidence, scope, rows)
    return values if isinstance(values, str) else stats.cluster_sums(values, codes)


def _keys(evidence: Evidence, scope: Scope) -> Keys | None:
    """Those of a task's clusters; a group's are its tasks', of which each has its own weight."""
    if "group" in scope:
        return None
    return cluster_keys(evidence, scope["task"], _rows(evidence, scope))


def _moved(evidence: Evidence, scope: Scope, rows: pd.DataFrame) -> Any:
    """What each item gained, signed so that more is better."""
    moved = rows["score_cand"].to_numpy(float) - rows["score_ref"].to_numpy(float)
    return _signs(evidence, rows) * moved


def _flipped(evidence: Evidence, scope: Scope, rows: pd.DataFrame) -> Any:
    return (rows["score_cand"] != rows["score_ref"]).to_numpy(float)


def _aggregate(side: str, evidence: Evidence, scope: Scope) -> float:
    """lm-eval's score of a side."""
    tasks = evidence.tasks
    rows = tasks[(tasks["task"] == scope["task"]) & (tasks["metric"] == scope["metric"])]
    return float(rows[side].iloc[0])


def _scores(side: str, evidence: Evidence, scope: Scope, rows: pd.DataFrame) -> Any:
    """The items' scores on one side, where lm-eval's score is their mean."""
    values = rows["score_ref" if side == "reference" else "score_cand"].to_numpy(float)
    mean = abs(values.mean() - _aggregate(side, evidence, scope)) < 1e-9
    return values if mean else _NO_MEAN


def _of_group(evidence: Evidence, scope: Scope, confidence: float, one: Compute) -> Measured:
    """The mean over a group's tasks, each with its own interval; the worst of them is named."""
    metric = scope["metric"]
    weights = evidence.groups[scope["group"], metric].weights
    leaves: list[Scope] = [{"task": task, "metric": metric} for task in weights]
    parts = [one(evidence, leaf, confidence).interval for leaf in leaves]
    found = stats.mean_of_parts(parts, list(weights.values()), sharing_data(evidence, leaves))
    bare = [(t, p.reason) for t, p in zip(weights, parts, strict=True) if p.low is None]
    if bare:
        found = replace(found, reason=f"task {bare[0][0]}: {bare[0][1]}")
    return Measured(found)


def _aggregate_scopes(evidence: Evidence) -> list[Scope]:
    tasks: list[Scope] = [
        {"task": str(t), "metric": str(m)}
        for t, m in zip(evidence.tasks["task"], evidence.tasks["metric"], strict=True)
    ]
    return tasks + [{"group": name, "metric": metric} for name, metric in evidence.groups]


def _score(side: str, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    if "group" in scope:
        return _group_score(side, evidence, scope, confidence)
    value, rows = _aggregate(side, evidence, scope), _rows(evidence, scope)
    if not np.isfinite(value):
        return Measured(undefined("lm-eval gave no finite score", confidence, len(rows)))
    # The interval of the mean belongs to lm-eval's score only where that is the mean.
    if len(rows) and _bad(rows, confidence) is None:
        values = _scores(side, evidence, scope, rows)
        if not isinstance(values, str):
            found = _clustered(rows, values, confidence, shift=False)
            return Measured(stats.within(found, 0, 1) if _are_binary(rows) else found)
    n = len(rows)
    return Measured(Interval(value, None, None, confidence, n, n, "lm-eval", reason=_NO_MEAN))


def _group_score(side: str, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    group = evidence.groups[scope["group"], scope["metric"]]
    value: float | None = getattr(group, side)
    if value is None:
        return Measured(undefined("a task of the group has no score", confidence))
    found = _of_group(evidence, scope, confidence, partial(_score, side))
    if found.interval.value is not None and abs(found.interval.value - value) < 1e-9:
        items = [evidence.items_of(task, scope["metric"]) for task in group.weights]
        binary = all(map(_are_binary, items))  # of a task without items nothing is known
        return Measured(stats.within(found.interval, 0, 1)) if binary else found
    interval = replace(found.interval, value=value, low=None, high=None, se=None)
    return Measured(replace(interval, reason="its interval is not that of a mean over items"))


for _side in ("reference", "candidate"):
    metric(
        f"task.score.{_side}",
        f"Task score, {_side}",
        family=TASK,
        unit="as the task",
        direction="none",
        identity=None,
        source="lm-evaluation-harness",
        scopes=_aggregate_scopes,
        scope_keys=GROUP_KEYS,
        records="items",
        totals=partial(_totals, partial(_scores, _side)),
        min_n=_LEAST,
        keys=_keys,
    )(partial(_score, _side))


def _flips_either_way(spread: Spread, items: int, confidence: float) -> Interval:
    """Right-or-wrong items of which as many flip one way as the other: the variance is their share.

    As many as that about the limit is not known either, so that the interval is of no shift.
    """
    each = min(1.0, spread.sd**2) * items / 2
    return stats.paired_shift(each, each, items, confidence)


SCORE_SHIFT, FLIPS = "task.score.shift", "task.flips"
REFERENCE_SCORE = "task.score.reference"


@metric(
    SCORE_SHIFT,
    "Task score shift",
    family=TASK,
    spread=Spread(math.sqrt(0.05)),  # 5% of the items flip
    typical=_flips_either_way,
    min_n=_LEAST,
    signed=True,
    shown=("proposal",),
    unit="as the task",
    direction="higher",
    difference=True,
    identity=0.0,
    symmetric="odd",
    scopes=with_groups(task_scopes()),
    scope_keys=GROUP_KEYS,
    records="items",
    totals=partial(_totals, _moved),
    keys=_keys,
    source="paired mean of candidate − reference, signed so that higher is better; binary items: "
    "Tango 1998, Clopper & Pearson where all changes go one way; other scores, and items that "
    "share a passage or a text: skewness-adjusted cluster t; a group: MOVER over its tasks, Zou & "
    "Donner 2008",
)
def score_shift(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    rows = _rows(evidence, scope)
    bad = _bad(rows, confidence)
    if bad is not None:
        return Measured(bad)
    moved = _moved(evidence, scope, rows)
    whole = _shift(rows, moved, confidence)
    ends = (-1.0, 1.0) if _are_binary(rows) else (-math.inf, math.inf)
    if "group" in scope:
        found = _of_group(evidence, scope, confidence, score_shift).interval
        # Made of two halves, a task is no surer than it was whole.
        found = stats.within(stats.no_narrower(found, whole), *ends)
        return Measured(found, _worst_task(rows, moved))
    worst = None
    if len(rows) and moved.min() < 0:
        first = rows.iloc[int(moved.argmin())]
        worst = f"task {scope['task']}, item {first['doc_id']}"
    return Measured(stats.within(whole, *ends), worst)


def _are_binary(rows: pd.DataFrame) -> bool:
    """Whether every item is right or wrong, so that a mean of them is a share."""
    return len(rows) > 0 and bool(rows["binary"].all())


def _shift(rows: pd.DataFrame, moved: Any, confidence: float) -> Interval:
    if not bool(rows["binary"].all()):
        return _clustered(rows, moved, confidence, shift=True)
    up, down = _total(rows, moved > 0), _total(rows, moved < 0)

    def exact(share: float) -> Interval:
        return stats.paired_shift(share * up, share * down, share * len(rows), confidence)

    return _of_binary(rows, moved, confidence, exact, shift=True)


def _worst_task(rows: pd.DataFrame, moved: Any) -> str | None:
    means = pd.Series(moved, rows["task"].to_numpy()).groupby(level=0).mean()
    if not len(means) or means.min() >= 0:
        return None
    return f"task {means.idxmin()} at {means.min():+.4g}"


@metric(
    FLIPS,
    "Task items flipped",
    family=TASK,
    rate=True,
    spread=Spread(math.sqrt(0.05 * 0.95), value=0.05),
    min_n=_LEAST,
    unit="fraction",
    direction="lower",
    identity=0.0,
    symmetric="even",
    scope_keys=GROUP_KEYS,
    records="items",
    scopes=with_groups(task_scopes(lambda rows: bool(rows["binary"].all()))),
    totals=partial(_totals, _flipped),
    keys=_keys,
    source="share of items right on one side only; Dutta 2407.09141",
)
def flips(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    rows = _rows(evidence, scope)
    bad = _bad(rows, confidence)
    if bad is not None:
        return Measured(bad)
    changed = _flipped(evidence, scope, rows)
    count = _total(rows, changed > 0)

    def exact(share: float) -> Interval:
        return stats.clopper_pearson(share * count, share * len(rows), confidence)

    whole = _of_binary(rows, changed, confidence, exact, shift=False)
    if "group" not in scope:
        return Measured(whole)
    found = _of_group(evidence, scope, confidence, flips).interval
    return Measured(stats.no_narrower(found, whole))


def _of_binary(
    rows: pd.DataFrame,
    values: Any,
    confidence: float,
    exact: Callable[[float], Interval],
    *,
    shift: bool,
) -> Interval:
    """The interval of right-or-wrong items: exact where each stands for itself.

    Else that of clusters, which knows nothing of a change that no cluster shows, and little of
    items that are repeated: there it is no narrower than the exact one of as many items as there
    are independent ones (Kish 1965).

    Parameters
    ----------
    rows, values : the items and what is averaged over them.
    exact : of the share of the items that are independent.
    shift : whether ``values`` are differences of scores, and not scores or shares.

    """
    sizes = rows.groupby("cluster").size()
    if len(sizes) == len(rows):
        return exact(_effective(rows))
    found = _clustered(rows, values, confidence, shift=shift)
    same = np.array([str(c).startswith(f"{SAME_TEXT}:") for c in sizes.index])
    if found.low is None or found.high is None or not (found.se == 0 or same.any()):
        return found
    counted = sizes.to_numpy(float) ** np.where(same | (found.se == 0), 2, 1)
    return stats.no_narrower(found, exact(_effective(rows) * len(rows) / float(counted.sum())))


def _total(rows: pd.DataFrame, chosen: Any) -> float:
    """How many items these are, of a group in the weights of its tasks."""
    weights = rows["weight"].to_numpy() if "weight" in rows else np.ones(len(rows))
    return min(float(weights[chosen].sum()), float(len(rows)))


def _effective(rows: pd.DataFrame) -> float:
    """The share of the items that as many of one weight would tell as much as (Kish 1965)."""
    if "weight" not in rows:
        return 1.0
    weights = rows["weight"].to_numpy()
    return min(1.0, float(weights.sum()) ** 2 / float(weights @ weights) / len(rows))


def _clustered(rows: pd.DataFrame, values: Any, confidence: float, *, shift: bool) -> Interval:
    codes, _ = pd.factorize(rows["cluster"])
    weighted = values * rows["weight"].to_numpy() if "weight" in rows else values
    totals = stats.cluster_sums(weighted, codes)
    bounds = _bounds(rows)
    if bounds is None:
        return stats.cluster_skew_t(*totals, confidence)
    return stats.bounded_mean_t(*totals, confidence, *(bounds if shift else (0.0, bounds[1])))


def _bounds(rows: pd.DataFrame) -> tuple[float, float] | None:
    """The least and the largest shift of one item: all of the range that scores have, or 1.

    None for scores that are no share, such as log-likelihoods.
    """
    scores = rows[["score_ref", "score_cand"]].to_numpy(float)
    if scores.size == 0 or scores.min() < 0:
        return None
    most = max(1.0, float(scores.max()))
    return -most, most


def _signs(evidence: Evidence, rows: pd.DataFrame) -> Any:
    """1 for items of tasks where higher is better, else −1."""
    tasks = evidence.tasks
    columns = (tasks[name].tolist() for name in ("task", "metric", "higher_is_better"))
    lower = {(task, name) for task, name, higher in zip(*columns, strict=True) if not higher}
    if not lower:
        return 1.0
    own = zip(rows["task"], rows["metric"], strict=True)
    return np.array([-1.0 if one in lower else 1.0 for one in own])
