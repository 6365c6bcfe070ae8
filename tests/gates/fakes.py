"""Estimates made by hand, so that every verdict's oracle is in the test."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from evalharness.gates import Decision, Policy, decide, policy_from
from evalharness.metrics import REGISTRY, Evidence
from evalharness.run.directory import InMemory
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import GateResult
from evalharness.spec.yamlfile import parse_yaml


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
    info = REGISTRY[metric]
    fields = {"n": 100 * clusters, "unit": info.unit, "direction": info.direction, **more}
    return Estimate(id=metric, value=value, low=low, high=high, clusters=clusters, **fields)


class FakeEstimates:
    """A run's estimates; an interval is handed out at every confidence.

    One that names its own, other than .95, is stretched by t for others.
    """

    def __init__(self, *estimates: Estimate) -> None:
        self._estimates = estimates
        self.evidence = Evidence(InMemory({}, {}))

    def scopes(self, metric: str) -> list[dict[str, str]]:
        return [e.scope for e in self._estimates if e.id == metric]

    def leaves(self, scope: dict[str, str]) -> frozenset[str]:
        """The one task: a fake run has no groups."""
        return frozenset((scope["task"],)) if "task" in scope else frozenset()

    def together(self, scopes: list[dict[str, str]]) -> list[int]:
        """Corpora and tasks are of different data, whatever else is of the same."""
        apart = all({"task", "corpus"} & scope.keys() for scope in scopes)
        return list(range(len(scopes))) if apart else [0] * len(scopes)

    def estimate(self, metric: str, scope: dict[str, str], confidence: float) -> Estimate:
        found = next(e for e in self._estimates if e.id == metric and e.scope == scope)
        if found.confidence == 0.95 or None in (found.value, found.low, found.high):
            return found
        wide, own = (
            stdtrit(found.clusters - 1, 0.5 + c / 2) for c in (confidence, found.confidence)
        )
        ends = (found.value + (end - found.value) * wide / own for end in (found.low, found.high))
        return found.model_copy(update=dict(zip(("low", "high"), ends, strict=True)))

    def noise_unknown(self, metric: str, scope: dict[str, str]) -> str | None:
        """Nobody tried."""
        return None

    def parts(self, metric: str, scope: dict[str, str]) -> None:
        """Nobody knows the documents of a fake run."""

    def at_once(self, metric: str, scope: dict[str, str], confidence: float) -> Estimate:
        return self.estimate(metric, scope, confidence)

    def all(self) -> Iterable[Estimate]:
        return self._estimates


def policy(text: str, path: str = "gates/p.yaml") -> Policy:
    """The checked policy of a YAML text."""
    return policy_from(parse_yaml(textwrap.dedent(text), Path(path)))


def gate(text: str) -> Policy:
    """A policy of one gate, given as the inside of a flow mapping."""
    return policy(f"gates:\n  - {{{text}}}\n")


def decided(policy: Policy, *estimates: Estimate, **more: object) -> Decision:
    """The policy decided on these estimates."""
    return decide(policy, FakeEstimates(*estimates), **more)  # type: ignore[arg-type]


def only(text: str, *estimates: Estimate) -> GateResult:
    """The one result of a policy of one gate."""
    (result,) = decided(gate(text), *estimates).gates
    return result


def tasks(*shifts: tuple[str, float, float]) -> list[Estimate]:
    return [
        estimate(
            "task.score.shift", (low + high) / 2, low, high, scope={"task": task, "metric": "acc"}
        )
        for task, low, high in shifts
    ]
