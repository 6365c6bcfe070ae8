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
from evalharness.metrics.evidence import (
    TASK_KEYS,
    Evidence,
    task_scopes,
    undefined,
)
from evalharness.metrics.families import TASK
from evalharness.metrics.registry import Measured, Spread, Totals, metric
from evalharness.metrics.scope_keys import cluster_keys
from evalharness.run.records import SAME_TEXT
from evalharness.spec.estimate import Scope
from evalharness.stats import Interval

_NO_MEAN = "lm-eval's aggregate is not a mean over items"


def _rows(evidence: Evidence, scope: Scope) -> pd.DataFrame:
    items = evidence.items
    return items[(items["task"] == scope["task"]) & (items["metric"] == scope["metric"])]


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


def _keys(evidence: Evidence, scope: Scope) -> Keys:
    return cluster_keys(evidence, scope["task"], _rows(evidence, scope))


def _moved(evidence: Evidence, scope: Scope, rows: pd.DataFrame) -> Any:
    """What each item gained, signed so that more is better."""
    sign = 1.0 if _higher_is_better(evidence, scope) else -1.0
    return sign * (rows["score_cand"].to_numpy(float) - rows["score_ref"].to_numpy(float))


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


def _aggregate_scopes(evidence: Evidence) -> list[Scope]:
    return [
        {"task": str(t), "metric": str(m)}
        for t, m in zip(evidence.tasks["task"], evidence.tasks["metric"], strict=True)
    ]


def _score(side: str, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    value, rows = _aggregate(side, evidence, scope), _rows(evidence, scope)
    if not np.isfinite(value):
        return Measured(undefined("lm-eval gave no finite score", confidence, len(rows)))
    # The interval of the mean belongs to lm-eval's score only where that is the mean.
    if len(rows) and _bad(rows, confidence) is None:
        values = _scores(side, evidence, scope, rows)
        if not isinstance(values, str):
            return Measured(_clustered(rows, values, confidence))
    n = len(rows)
    return Measured(Interval(value, None, None, confidence, n, n, "lm-eval", reason=_NO_MEAN))


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
        scope_keys=TASK_KEYS,
        records="items",
        totals=partial(_totals, partial(_scores, _side)),
        keys=_keys,
    )(partial(_score, _side))


SCORE_SHIFT, FLIPS = "task.score.shift", "task.flips"


@metric(
    SCORE_SHIFT,
    "Task score shift",
    family=TASK,
    spread=Spread(math.sqrt(0.05)),  # 5% of the items flip
    signed=True,
    shown=("proposal",),
    unit="as the task",
    direction="higher",
    difference=True,
    identity=0.0,
    symmetric="odd",
    scopes=task_scopes(),
    scope_keys=TASK_KEYS,
    records="items",
    totals=partial(_totals, _moved),
    keys=_keys,
    source="paired mean of candidate − reference, signed so that higher is better; binary items: "
    "Tango 1998; other scores, and items that share a passage or a text: skewness-adjusted cluster "
    "t",
)
def score_shift(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    rows = _rows(evidence, scope)
    bad = _bad(rows, confidence)
    if bad is not None:
        return Measured(bad)
    moved = _moved(evidence, scope, rows)
    worst = None
    if len(rows) and moved.min() < 0:
        first = rows.iloc[int(moved.argmin())]
        worst = f"task {scope['task']}, item {first['doc_id']}"
    if not bool(rows["binary"].all()):
        return Measured(_clustered(rows, moved, confidence), worst)
    up, down = int((moved > 0).sum()), int((moved < 0).sum())

    def exact(share: float) -> Interval:
        return stats.tango(share * up, share * down, share * len(rows), confidence)

    return Measured(_of_binary(rows, moved, confidence, exact), worst)


@metric(
    FLIPS,
    "Task items flipped",
    family=TASK,
    rate=True,
    spread=Spread(math.sqrt(0.05 * 0.95), value=0.05),
    unit="fraction",
    direction="lower",
    identity=0.0,
    symmetric="even",
    scope_keys=TASK_KEYS,
    records="items",
    scopes=task_scopes(lambda rows: bool(rows["binary"].all())),
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
    count = int(changed.sum())

    def exact(share: float) -> Interval:
        return stats.clopper_pearson(share * count, share * len(rows), confidence)

    return Measured(_of_binary(rows, changed, confidence, exact))


def _of_binary(
    rows: pd.DataFrame, values: Any, confidence: float, exact: Callable[[float], Interval]
) -> Interval:
    """The interval of right-or-wrong items: exact where each stands for itself.

    Else that of clusters, which knows nothing of a change that no cluster shows, and little of
    items that are repeated: there it is no narrower than the exact one of as many items as there
    are independent ones (Kish 1965).

    Parameters
    ----------
    rows, values : the items and what is averaged over them.
    exact : of the share of the items that are independent.

    """
    sizes = rows.groupby("cluster").size()
    if len(sizes) == len(rows):
        return exact(1.0)
    found = _clustered(rows, values, confidence)
    same = np.array([str(c).startswith(f"{SAME_TEXT}:") for c in sizes.index])
    if found.low is None or found.high is None or not (found.se == 0 or same.any()):
        return found
    counted = sizes.to_numpy(float) ** np.where(same | (found.se == 0), 2, 1)
    least = exact(len(rows) / float(counted.sum()))
    if least.low is None or least.high is None:
        return found
    return replace(
        found,
        low=min(found.low, least.low),
        high=max(found.high, least.high),
        method=f"{found.method}; no narrower than {least.method}",
    )


def _clustered(rows: pd.DataFrame, values: Any, confidence: float) -> Interval:
    codes, _ = pd.factorize(rows["cluster"])
    return stats.cluster_skew_t(*stats.cluster_sums(values, codes), confidence)


def _higher_is_better(evidence: Evidence, scope: Scope) -> bool:
    tasks = evidence.tasks
    found = tasks[(tasks["task"] == scope["task"]) & (tasks["metric"] == scope["metric"])]
    return bool(found["higher_is_better"].iloc[0]) if len(found) else True
