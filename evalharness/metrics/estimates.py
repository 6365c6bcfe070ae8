"""Estimates of a run, computed from its records when asked for and remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from evalharness.metrics.evidence import Evidence, undefined
from evalharness.metrics.numbers import finite
from evalharness.metrics.paired import Difference, Outcomes, compared, compared_parts, outcomes
from evalharness.metrics.registry import REGISTRY, Measured, Metric, Totals
from evalharness.metrics.scopes import of_tasks, sharing_data
from evalharness.spec.estimate import Estimate, Scope
from evalharness.stats import (
    TooFewReplicates,
    look_confidence,
    rate_sequence,
    sequence_of,
    within,
)
from evalharness.stats.interval import Floats

Parts = tuple[Floats, Floats]
Stored = Callable[[str, Scope], Outcomes | None]


class Estimates:
    """What gates and the result ask: which scopes a metric has, and its estimate in one."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.noise: dict[str, float] = evidence.run.manifest.get("noise_floor", {})
        self.noise_missing: dict[str, str] = evidence.run.manifest.get("noise_floor_missing", {})
        # After stopping early an interval made for a fixed number of documents covers too little.
        self.stopping: dict[str, Any] | None = evidence.run.manifest.get("stop_early")
        self._known: dict[tuple[str, str, float], Estimate] = {}

    def scopes(self, metric: str) -> list[Scope]:
        """The scopes of ``metric`` that exist in this run."""
        return REGISTRY[metric].scopes(self.evidence)

    def leaves(self, scope: Scope) -> frozenset[str]:
        """The tasks within ``scope``; none where it is no scope of tasks."""
        return self.evidence.leaves(scope)

    def together(self, scopes: Sequence[Scope]) -> list[int]:
        """Number alike the scopes whose errors may go together: those that share data."""
        if self.stopping is not None and not all(map(of_tasks, scopes)):
            return [0] * len(scopes)  # one look at all of them decided when to stop
        return sharing_data(self.evidence, scopes)

    def estimate(self, metric: str, scope: Scope, confidence: float) -> Estimate:
        """The estimate with its two-sided interval at ``confidence``."""
        key = (metric, json.dumps(scope, sort_keys=True), confidence)
        if key not in self._known:
            self._known[key] = self._compute(metric, scope, confidence)
        return self._known[key]

    def noise_unknown(self, metric: str, scope: Scope) -> str | None:
        """Why rounding alone was tried and it is not known what it does here; None: it is."""
        return None if of_tasks(scope) else self.noise_missing.get(metric)

    def at_once(self, metric: str, scope: Scope, confidence: float) -> Estimate:
        """The estimate of a mean as it would be without stopping early; of others, as it is."""
        found, info = self.estimate(metric, scope, confidence), REGISTRY[metric]
        if self.stopping is None or info.totals is None or info.share or of_tasks(scope):
            return found
        totals = self._totals(info, scope)
        if isinstance(totals, str):
            return found
        plain = within(info.transform(info.of_totals(*totals, confidence)), *info.limits)
        return found.model_copy(update={"low": finite(plain.low), "high": finite(plain.high)})

    def parts(self, metric: str, scope: Scope) -> Parts | None:
        """Sums and numbers of rows of the documents that a mean over texts is made of."""
        info = REGISTRY[metric]
        if info.totals is None or info.rate or of_tasks(scope):
            return None
        totals = self._totals(info, scope)
        if isinstance(totals, str):
            return None
        sums, counts = (np.asarray(part, dtype=np.float64) for part in totals)
        return sums[counts > 0], counts[counts > 0]

    def _sequential(
        self, metric: Metric, scope: Scope, confidence: float, tuned_for: int
    ) -> Measured:
        """The interval of a confidence sequence, valid whenever one stops to look."""
        if metric.totals is None:
            return self._bare(
                metric, scope, confidence, "it has no interval that holds after stopping early"
            )
        totals = self._totals(metric, scope)
        if isinstance(totals, str):
            return Measured(undefined(totals, confidence))
        if metric.share:
            return Measured(metric.transform(rate_sequence(*totals, confidence, longest=1)))
        found = sequence_of(metric.of_totals, *totals, confidence, tuned_for)
        return Measured(metric.transform(found))

    def _totals(self, metric: Metric, scope: Scope) -> Totals:
        assert metric.totals is not None
        return metric.totals(self.evidence, scope)

    def _looked(
        self, metric: Metric, scope: Scope, confidence: float, taken: list[float]
    ) -> Measured:
        """The metric's own interval at the confidence of the last look."""
        if not taken:
            return self._bare(metric, scope, confidence, "no planned look has been taken yet")
        try:
            measured = metric.compute(self.evidence, scope, look_confidence(confidence, taken))
        except TooFewReplicates:
            return self._bare(
                metric,
                scope,
                confidence,
                f"look {len(taken)} asks for more confidence than resampling can give: a later "
                "look can decide it",
            )
        method = f"{measured.interval.method}, O'Brien-Fleming look {len(taken)}"
        found = replace(measured.interval, confidence=confidence, method=method)
        return replace(measured, interval=found)

    def _bare(self, metric: Metric, scope: Scope, confidence: float, reason: str) -> Measured:
        """The value without an interval."""
        measured = metric.compute(self.evidence, scope, confidence)
        bare = replace(
            measured.interval,
            low=None,
            high=None,
            se=None,
            reason=measured.interval.reason or reason,
        )
        return replace(measured, interval=bare)

    def against(
        self, id: str, scope: Scope, stored: Stored, slope: float, confidence: float
    ) -> Difference | None:
        """A mean less ``slope`` times a stored run's, over the documents of both; None: none is.

        The interval is at two-sided ``confidence``, and holds after stopping early. ``stored``
        gives what the stored mean of a metric in a scope is made of.
        """
        metric, stop = REGISTRY[id], self.stopping
        if "group" in scope:
            return self._group_against(metric, scope, stored, slope, confidence)
        kept = stored(id, scope)
        now = None if kept is None else outcomes(metric, self.evidence, scope, self._totals)
        if now is None or kept is None:
            return None
        widened = None
        if stop is not None and not of_tasks(scope):
            if "looks" not in stop:
                widened = partial(sequence_of, tuned_for=stop["tuned_for"])
            elif stop["taken"]:
                confidence = look_confidence(confidence, stop["taken"])
            else:
                return None
        return compared(metric, now, kept, slope, confidence, widened)

    def _group_against(
        self, metric: Metric, scope: Scope, stored: Stored, slope: float, confidence: float
    ) -> Difference | None:
        """The same of a group of tasks: task by task."""
        group = self.evidence.groups.get((scope["group"], scope["metric"]))
        weights = {} if group is None else group.weights
        leaves = [{"task": task, "metric": scope["metric"]} for task in weights]
        parts = []
        for leaf in leaves:
            kept = stored(metric.id, leaf)
            now = None if kept is None else outcomes(metric, self.evidence, leaf)
            if now is None or kept is None:
                return None
            parts.append((now, kept))
        blocks = sharing_data(self.evidence, leaves)
        return compared_parts(metric, parts, list(weights.values()), blocks, slope, confidence)

    def all(self, confidence: float) -> list[Estimate]:
        """Every metric in every scope; a lone corpus is everything.

        Errors of layers are left out: they have hundreds of scopes, which the result lists under
        `layers`.
        """
        alone = self.evidence.documents["corpus"].nunique() < 2
        return [
            self.estimate(id, scope, confidence)
            for id in REGISTRY
            if REGISTRY[id].records != "layers"
            for scope in self.scopes(id)
            if not (alone and "corpus" in scope)
        ]

    def _compute(self, id: str, scope: Scope, confidence: float) -> Estimate:
        metric = REGISTRY[id]
        stop = self.stopping
        # Nobody looked at tasks and times before they were all there.
        if stop is None or of_tasks(scope) or metric.deterministic or metric.of_processes:
            measured = metric.compute(self.evidence, scope, confidence)
        elif "looks" in stop:
            measured = self._looked(metric, scope, confidence, stop["taken"])
        else:
            measured = self._sequential(metric, scope, confidence, stop["tuned_for"])
        found = within(measured.interval, *metric.limits)
        return Estimate(
            id=id,
            scope=scope,
            value=finite(found.value),
            low=finite(found.low),
            high=finite(found.high),
            confidence=found.confidence,
            method=found.method,
            n=found.n,
            clusters=found.clusters,
            unit=metric.unit,
            direction=metric.direction,
            noise_floor=None if of_tasks(scope) else self.noise.get(id),
            se=finite(found.se),
            reason=found.reason,
            at_least=metric.grows and self.evidence.top_logprobs > 0,
            worst=measured.worst,
        )
