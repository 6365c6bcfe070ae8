"""Metrics and estimates made by hand, so that every verdict's oracle is in the test."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalharness.gates import Policy, policy_from
from evalharness.spec.result import Estimate
from evalharness.spec.yamlfile import parse_yaml


@dataclass(frozen=True)
class FakeMetric:
    """What the gates ask of a metric."""

    id: str
    unit: str = "nats/token"
    direction: Literal["lower", "higher", "none"] = "lower"
    difference: bool = False
    identity: float | None = 0.0
    scope_keys: tuple[str, ...] = ("corpus", "slice")
    deterministic: bool = False


_TASK = ("task", "metric")
METRICS = {
    metric.id: metric
    for metric in (
        FakeMetric("perplexity.ratio", "ratio", identity=1.0),
        FakeMetric("nll.shift", difference=True),
        FakeMetric("kl.mean"),
        FakeMetric("kl.max"),
        FakeMetric("top1.agreement", "fraction", "higher", identity=1.0),
        FakeMetric("ece.reference", "fraction", identity=None),
        FakeMetric("ece.shift", "fraction", difference=True),
        FakeMetric("temperature.shift", "1", "none", difference=True),
        FakeMetric("task.score.reference", "as the task", "none", False, None, _TASK),
        FakeMetric("task.score.shift", "as the task", "higher", True, 0.0, _TASK),
        FakeMetric("task.flips", "fraction", "lower", False, 0.0, _TASK),
        FakeMetric("layer.error.total", "relative L2", scope_keys=("layer",)),
        FakeMetric("weights.bits_per_weight", "bits", "lower", False, None, (), True),
        FakeMetric("memory.weights.ratio", "ratio", "lower", False, 1.0, (), True),
        FakeMetric("latency.decode.ratio", "ratio", "lower", False, None, ()),
    )
}


def estimate(
    metric: str,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    clusters: int = 64,
    **more: Any,
) -> Estimate:
    """An estimate over 64 documents unless said otherwise."""
    info = METRICS[metric]
    fields = {"n": 100 * clusters, "unit": info.unit, "direction": info.direction, **more}
    return Estimate(id=metric, value=value, low=low, high=high, clusters=clusters, **fields)


class FakeEstimates:
    """A run's estimates; the interval given is handed out at every confidence."""

    def __init__(self, *estimates: Estimate) -> None:
        self._estimates = estimates

    def scopes(self, metric: str) -> list[dict[str, str]]:
        return [e.scope for e in self._estimates if e.id == metric]

    def estimate(self, metric: str, scope: dict[str, str], confidence: float) -> Estimate:
        return next(e for e in self._estimates if e.id == metric and e.scope == scope)

    def all(self) -> Iterable[Estimate]:
        return self._estimates


def policy(text: str, path: str = "gates/p.yaml") -> Policy:
    """The checked policy of a YAML text."""
    return policy_from(parse_yaml(textwrap.dedent(text), Path(path)), METRICS)


def gate(text: str) -> Policy:
    """A policy of one gate, given as the inside of a flow mapping."""
    return policy(f"gates:\n  - {{{text}}}\n")
