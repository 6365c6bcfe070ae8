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
from evalharness.metrics.evidence import TASK_KEYS, Evidence, task_scopes, undefined
from evalharness.metrics.families import TASK
from evalharness.metrics.registry import Measured, Spread, metric
from evalharness.run.records import SAME_TEXT
from evalharness.spec.estimate import Scope
from evalharness.stats import Interval


def _rows(evidence: Evidence, scope: Scope) -> pd.DataFrame:
    items = evidence.items
    return items[(items["task"] == scope["task"]) & (items["metric"] == scope["metric"])]


def _bad(rows: pd.DataFrame, confidence: float) -> Interval | None:
    missing = int((~np.isfinite(rows[["score_ref", "score_cand"]].to_numpy(float))).any(1).sum())
    if missing:
        return undefined(f"{missing} of {len(rows)} items have no finite score", confidence)
    return None


def _aggregate_scopes(evidence: Evidence) -> list[Scope]:
    return [
        {"task": str(t), "metric": str(m)}
        for t, m in zip(evidence.tasks["task"], evidence.tasks["metric"], strict=True)
    ]


def _score(side: str, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    tasks = evidence.tasks
    row = tasks[(tasks["task"] == scope["task"]) & (tasks["metric"] == scope["metric"])].iloc[0]
    value = row[side]
    rows = _rows(evidence, scope)
    column = "score_ref" if side == "reference" else "score_cand"
    if not np.isfinite(value):
        return Measured(undefined("lm-eval gave no finite score", confidence, len(rows)))
    if len(rows) and _bad(rows, confidence) is None:
        interval = _clustered(rows, rows[column].to_numpy(float), confidence)
        # The interval of the mean belongs to lm-eval's score only where that is the mean.
        if interval.value is not None and abs(interval.value - value) < 1e-9:
            return Measured(interval)
    return Measured(
        Interval(
            float(value),
            None,
            None,
            confidence,
            len(rows),
            len(rows),
            "lm-eval",
            reason="lm-eval's aggregate is not a mean over items",
        )
    )


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
    source="paired mean of candidate − reference, signed so that higher is better; binary items: "
    "Tango 1998; other scores, and items that share a passage or a text: skewness-adjusted cluster "
    "t",
)
def score_shift(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    rows = _rows(evidence, scope)
    bad = _bad(rows, confidence)
    if bad is not None:
        return Measured(bad)
    sign = 1.0 if _higher_is_better(evidence, scope) else -1.0
    moved = sign * (rows["score_cand"].to_numpy(float) - rows["score_ref"].to_numpy(float))
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
    source="share of items right on one side only; Dutta 2407.09141",
)
def flips(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    rows = _rows(evidence, scope)
    bad = _bad(rows, confidence)
    if bad is not None:
        return Measured(bad)
    changed = (rows["score_cand"] != rows["score_ref"]).to_numpy()
    count = int(changed.sum())

    def exact(share: float) -> Interval:
        return stats.clopper_pearson(share * count, share * len(rows), confidence)

    return Measured(_of_binary(rows, changed.astype(float), confidence, exact))


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
