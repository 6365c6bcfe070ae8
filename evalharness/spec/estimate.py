"""The common base of `result.json`'s parts, and the part that most others hold: an estimate."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE", "ANOMALOUS"]
Severity = Literal["error", "warn", "info"]
Direction = Literal["lower", "higher", "none"]
Scope = dict[str, str]


class Part(BaseModel):
    """A frozen piece of the result."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(Part):
    """A metric's value with its interval. ``low``/``high`` are null when there is no honest one."""

    id: str
    scope: Scope = {}
    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    method: str = ""
    n: int = 0
    clusters: int = 0
    unit: str = ""
    direction: Direction = "none"
    noise_floor: float | None = None
    se: float | None = None
    reason: str | None = None
    at_least: bool = False  # a lower bound of the quantity, and not an estimate of it
    worst: str | None = None  # the worst offender in words: layer, task or token with its place
