"""Calibration of the top prediction: over next tokens, and over multiple-choice items of a task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from evalharness import stats
from evalharness.metrics.evidence import Evidence, undefined
from evalharness.metrics.families import CALIBRATION
from evalharness.metrics.registry import Measured, Spread, Totals, mean_metric, metric
from evalharness.metrics.scopes import TASK_KEYS, TEXT_KEYS, task_scopes, text_scopes
from evalharness.spec.estimate import Scope
from evalharness.stats import Interval

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Predictions:
    """Confidence and correctness of both sides' top predictions; (N,) each."""

    conf_ref: Array
    correct_ref: Array
    conf_cand: Array
    correct_cand: Array
    clusters: Array

    @property
    def both(self) -> tuple[Array, Array, Array, Array, Array]:
        """In the order the estimators take them."""
        return (self.conf_ref, self.correct_ref, self.conf_cand, self.correct_cand, self.clusters)

    def side(self, name: str) -> tuple[Array, Array]:
        """(confidence, correct) of one side."""
        if name == "reference":
            return self.conf_ref, self.correct_ref
        return self.conf_cand, self.correct_cand


def _choice(rows: pd.DataFrame) -> bool:
    return bool(rows["conf_ref"].notna().all()) and bool(rows["conf_cand"].notna().all())


_choice_tasks = task_scopes(_choice)


def scopes(evidence: Evidence) -> list[Scope]:
    """Text scopes, and each multiple-choice task (once: its first metric carries the choice)."""
    seen: set[str] = set()
    tasks = []
    for scope in _choice_tasks(evidence):
        if scope["task"] not in seen:
            seen.add(scope["task"])
            tasks.append({"task": scope["task"]})
    return text_scopes(evidence) + tasks


def predictions(evidence: Evidence, scope: Scope) -> Predictions | str:
    """The top predictions within ``scope``, or why there are none."""
    if "task" in scope:
        items = evidence.items
        rows = items[items["task"] == scope["task"]]
        rows = rows[rows["metric"] == scope.get("metric", rows["metric"].iloc[0])]
        bad = ~np.isfinite(rows[["conf_ref", "conf_cand"]].to_numpy(float)).all(1)
        if bad.any():
            return f"{bad.sum()} of {len(rows)} items have NaN or infinite confidence"
        codes, _ = pd.factorize(rows["cluster"])
        return Predictions(
            rows["conf_ref"].to_numpy(float),
            rows["correct_ref"].to_numpy(bool),
            rows["conf_cand"].to_numpy(float),
            rows["correct_cand"].to_numpy(bool),
            codes,
        )
    view = evidence.tokens(scope)
    reason = view.bad("conf_ref", "conf_cand")
    if reason:
        return reason
    token = view.column("token")
    return Predictions(
        np.clip(view.column("conf_ref"), 0, 1),
        view.column("argmax_ref") == token,
        np.clip(view.column("conf_cand"), 0, 1),
        view.column("argmax_cand") == token,
        view.cluster,
    )


_common: Any = {
    "family": CALIBRATION,
    "scopes": scopes,
    "scope_keys": (*TEXT_KEYS, *TASK_KEYS),
    "records": "tokens",
}


def _over(estimator: Any, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    found = predictions(evidence, scope)
    if isinstance(found, str):
        return Measured(undefined(found, confidence))
    return Measured(estimator(found, confidence))


def _side_ece(side: str, found: Predictions, confidence: float) -> Interval:
    conf, correct = found.side(side)
    ece = stats.ece(conf, correct)
    return Interval(
        ece.value,
        None,
        None,
        confidence,
        ece.n,
        len(np.unique(found.clusters)),
        "15 equal-mass bins",
        reason=f"a plug-in ECE is biased upwards: {ece.noise_floor:.4f} is expected of a perfectly "
        "calibrated model at this size; gate the shift of ce2 or of the calibration score",
    )


def side_id(side: str) -> str:
    """Return the id of the calibration error of one side."""
    return f"ece.{side}"


for _side in ("reference", "candidate"):
    metric(
        side_id(_side),
        f"Calibration error (ECE), {_side}",
        unit="fraction",
        direction="lower",
        identity=None,
        source="Σ (n_b/n)·|acc_b − conf_b|, 15 equal-mass bins; Roelofs 2012.08668",
        **_common,
    )(partial(_over, partial(_side_ece, _side)))


def _ece_shift(found: Predictions, confidence: float) -> Interval:
    return stats.ece_shift(*found.both, confidence)


def _ce2_shift(found: Predictions, confidence: float) -> Interval:
    return stats.ce2_shift(*found.both, confidence)


def _row_totals(of: Any, evidence: Evidence, scope: Scope) -> Totals:
    """Totals of candidate − reference of a score of each row."""
    found = predictions(evidence, scope)
    if isinstance(found, str):
        return found
    moved = of(*found.side("candidate")) - of(*found.side("reference"))
    return stats.cluster_sums(moved, found.clusters)


def _temperature_shift(found: Predictions, confidence: float) -> Interval:
    return stats.temperature_shift(*found.both, confidence)


_shift: Any = {"difference": True, "identity": 0.0, "symmetric": "odd", **_common}
metric(
    "ece.shift",
    "Calibration error (ECE) shift",
    unit="fraction",
    direction="lower",
    source="ECE of candidate − ECE of reference",
    shown=("summary",),
    ungated="it is biased toward no change, and its interval covers the truth 58% of the time. "
    "Gate ce2.shift or calibration.score.shift",
    **_shift,
)(partial(_over, _ece_shift))
metric(
    "ce2.shift",
    "Squared calibration error shift, debiased",
    unit="fraction",
    direction="lower",
    source="debiased, Kumar 1909.10155",
    **_shift,
)(partial(_over, _ce2_shift))
metric(
    "temperature.shift",
    "Fitted temperature shift",
    unit="1",
    direction="none",
    source="T in σ(logit(p̂)/T) of least NLL",
    **_shift,
)(partial(_over, _temperature_shift))
mean_metric(
    "calibration.score.shift",
    "Calibration score shift",
    partial(_row_totals, stats.calibration_score_sums),
    unit="fraction",
    direction="lower",
    source="mean of logit(p̂)·(p̂ − y)",
    spread=Spread(0.03),
    shown=("proposal",),
    **_shift,
)
mean_metric(
    "brier.shift",
    "Brier score shift",
    partial(_row_totals, stats.brier),
    unit="fraction",
    direction="lower",
    source="mean of (p̂ − y)²",
    spread=Spread(0.01),
    **_shift,
)
