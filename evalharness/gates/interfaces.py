"""What the gates ask of a run and of a stored baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from evalharness.spec.estimate import Estimate


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
