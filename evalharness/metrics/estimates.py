"""Estimates of a run, computed from its records when asked for and remembered."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from evalharness.metrics.evidence import Evidence
from evalharness.metrics.registry import REGISTRY, Measured, Metric, Scope
from evalharness.spec.result import Estimate
from evalharness.stats import mean_sequence

# A layer metric has hundreds of scopes; the result lists them under `layers`, not `metrics`.
_ELSEWHERE = "layer.error."


class Estimates:
    """What gates and the result ask: which scopes a metric has, and its estimate in one."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.noise: dict[str, float] = evidence.run.manifest.get("noise_floor", {})
        # After --stop-early an interval made for a fixed number of documents covers too little.
        self.sequence: dict[str, int] | None = evidence.run.manifest.get("stop_early")
        self._known: dict[tuple[str, str, float], Estimate] = {}

    def scopes(self, metric: str) -> list[Scope]:
        """The scopes of ``metric`` that exist in this run."""
        return REGISTRY[metric].scopes(self.evidence)

    def estimate(self, metric: str, scope: Scope, confidence: float) -> Estimate:
        """The estimate with its two-sided interval at ``confidence``."""
        key = (metric, json.dumps(scope, sort_keys=True), confidence)
        if key not in self._known:
            self._known[key] = self._compute(metric, scope, confidence)
        return self._known[key]

    def _sequential(
        self, metric: Metric, scope: Scope, confidence: float, tuned_for: int
    ) -> Measured:
        """The interval of a confidence sequence, valid whenever one stops to look."""
        if metric.totals is None:
            measured = metric.compute(self.evidence, scope, confidence)
            fixed = replace(
                measured.interval, low=None, high=None,
                reason="it has no interval that holds after stopping early",
            )  # fmt: skip
            return replace(measured, interval=fixed)
        totals = metric.totals(self.evidence, scope)
        if isinstance(totals, str):
            return metric.compute(self.evidence, scope, confidence)
        return Measured(metric.transform(mean_sequence(*totals, confidence, tuned_for)))

    def all(self, confidence: float) -> list[Estimate]:
        """Every metric in every scope, per-layer ones apart; a lone corpus is everything."""
        alone = self.evidence.documents["corpus"].nunique() < 2
        return [
            self.estimate(id, scope, confidence)
            for id in REGISTRY
            if not id.startswith(_ELSEWHERE)
            for scope in self.scopes(id)
            if not (alone and "corpus" in scope)
        ]

    def _compute(self, id: str, scope: Scope, confidence: float) -> Estimate:
        metric = REGISTRY[id]
        if self.sequence is not None and "task" not in scope and not metric.deterministic:
            measured = self._sequential(metric, scope, confidence, self.sequence["tuned_for"])
        else:
            measured = metric.compute(self.evidence, scope, confidence)
        found = measured.interval
        return Estimate(
            id=id, scope=scope, value=_finite(found.value), low=_finite(found.low),
            high=_finite(found.high), confidence=found.confidence, method=found.method, n=found.n,
            clusters=found.clusters, unit=metric.unit, direction=metric.direction,
            noise_floor=None if "task" in scope else self.noise.get(id),
            se=_finite(found.se), reason=found.reason, worst=measured.worst,
        )  # fmt: skip


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
