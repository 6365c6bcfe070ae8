"""What the gates ask of the rest: what a metric is, and what a run measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from evalharness.spec.result import Estimate


class MetricInfo(Protocol):
    """What the registry of metrics says of one."""

    @property
    def id(self) -> str:
        """Such as ``kl.mean``."""

    @property
    def unit(self) -> str:
        """Such as ``nats/token``; ``1`` for a ratio, ``fraction`` for a share."""

    @property
    def direction(self) -> Literal["lower", "higher", "none"]:
        """Which way is better."""

    @property
    def difference(self) -> bool:
        """The value is candidate minus reference."""

    @property
    def identity(self) -> float | None:
        """Its value for a model against itself; None where that depends on the model."""

    @property
    def scope_keys(self) -> tuple[str, ...]:
        """Keys that may narrow it."""

    @property
    def deterministic(self) -> bool:
        """Measured exactly: no interval is owed."""


Registry = Mapping[str, MetricInfo]


class Estimates(Protocol):
    """What one run measured."""

    def scopes(self, metric: str) -> list[dict[str, str]]:
        """The scopes in which the run has the metric; none when it was not measured."""

    def estimate(self, metric: str, scope: dict[str, str], confidence: float) -> Estimate:
        """The metric in one scope with its two-sided interval at ``confidence``."""


class Baseline(Protocol):
    """A stored run that gates may be relative to."""

    @property
    def path(self) -> str:
        """Where it is stored."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Hashes of the data, the tokenizer and the metrics that it was measured with."""

    def estimate(self, metric: str, scope: Mapping[str, str]) -> Estimate | None:
        """The stored estimate, or None where it has none."""


def registry() -> Registry:
    """The metrics that are registered."""
    from evalharness.metrics import REGISTRY

    return REGISTRY
