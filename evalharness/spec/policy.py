"""``gates/*.yaml``: the rules a candidate must keep, and the waivers that suspend one for a time.

Here is what a file may say, and what it comes to once `gates.policy_files` has worked in the
policies it extends. What a rule means for a metric (its direction, its unit, its scopes) is checked
by `evalharness.gates.load_policy`, which knows metrics.

    version: 1
    extends: evalharness:recommended     # its gates first; one of the same id changes what it names
    confidence: 0.95                     # of each verdict, one-sided
    baseline: main.json                  # for gates that are relative_to: baseline
    on_incomplete: block                 # where no gate is about what the candidate does
    defaults: {min_n: 30}
    gates:
      - metric: perplexity.ratio
        max: 1.02
        unless:                          # a trade-off: up to 1.05 if it buys any one of these
          max: 1.05
          any:
            - {metric: weights.bits_per_weight, max: 4.5}
            - {metric: latency.decode.ratio, max: 70%}
      - id: tasks
        metric: task.score.shift
        scope: {task: arc_*}
        min: -2%                         # of the reference's own score; -2pp would be points
        relative_to: reference
        each: true                       # one verdict a task
      - metric: kl.mean
        max: 5%                          # at most 5% above the stored run's value
        relative_to: baseline
        decide: not-worse                # the same candidate measured again passes
    waivers:
      - {gate: tasks, match: {task: arc_easy}, reason: "#12", owner: ann, expires: 2026-06-30}
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, field_validator

from evalharness.errors import InputError
from evalharness.spec.base import Spec
from evalharness.spec.limit import Limit, parse_limit
from evalharness.spec.yamlfile import KeyPath, YamlFile

Severity = Literal["error", "warn", "info"]
Decide = Literal["confident", "not-worse", "point"]
OnMissing = Literal["fail", "inconclusive"]
Blocks = Literal["block", "warn"]

LimitField = Annotated[
    Limit,
    BeforeValidator(parse_limit),
    PlainSerializer(lambda limit: str(limit)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number"},
                {"type": "string", "pattern": r"^[+-]?[0-9.eE+-]+ ?(%|pp)?$"},
            ],
            "description": "A number; 98% of a fraction or ratio; 2pp of a difference.",
        }
    ),
]
Globs = dict[str, str]


class Settings(Spec):
    """What ``defaults`` may set for every gate, and a gate for itself."""

    decide: Decide | None = Field(
        default=None,
        description="confident (default): PASS when the whole interval is inside the limit, FAIL "
        "when all of it is outside. not-worse: FAIL likewise, PASS when the value is inside: for "
        "ratchets. point: the value alone decides.",
    )
    severity: Severity | None = Field(default=None, description="Only error (default) blocks.")
    min_n: int | None = Field(
        default=None,
        ge=2,
        description="Fewest documents (or items) a verdict may rest on. Default: the metric's own, "
        "as `evalharness plan` shows it.",
    )
    on_missing: OnMissing | None = Field(
        default=None, description="Verdict when the run did not measure the metric. Default: fail."
    )
    on_inconclusive: Blocks | None = Field(default=None, description="Default: block.")
    on_anomalous: Blocks | None = Field(default=None, description="Default: block.")


class Condition(Spec):
    """What a trade-off must buy: one limit on one metric."""

    metric: str
    scope: Globs = Field(default={})
    max: LimitField | None = None
    min: LimitField | None = None


class Unless(Spec):
    """A looser limit that holds when any one condition is met."""

    max: LimitField | None = None
    min: LimitField | None = None
    any: tuple[Condition, ...] = Field(min_length=1)


class GateSpec(Settings):
    """One rule, as a file gives it."""

    id: str | None = Field(
        default=None, min_length=1, description="Default: the metric and its scope."
    )
    metric: str | None = Field(default=None, description="A metric id such as kl.mean.")
    scope: Globs = Field(
        default={},
        description="Globs by key (corpus, slice, task, group, metric, layer). Without a task or a "
        "group, tasks are those that the suite names: a group of lm-eval stands for its tasks. "
        "group: all is the mean over all of them. In a layer's name * stays between two dots and "
        "** crosses them: model.layers.* are the blocks.",
    )
    max: LimitField | None = None
    min: LimitField | None = None
    relative_to: Literal["reference", "baseline"] | None = Field(
        default=None,
        description="reference: percentages are of the reference's own value. baseline: limits "
        "are added to the stored run's value, percentages are of it; judged is the difference.",
    )
    each: bool = Field(default=False, description="One verdict for each scope that matches.")
    aggregate: Literal["worst", "mean"] | None = Field(
        default=None,
        description="Of several matches: all must pass (worst, the default), or their mean.",
    )
    unless: Unless | None = Field(
        default=None, description="A trade-off: a looser limit that is earned."
    )


class WaiverSpec(Spec):
    """A gate suspended by someone, for a reason, until a day."""

    gate: str = Field(min_length=1, description="The id of the gate.")
    match: Globs = Field(default={}, description="Only these scopes of the gate. Default: all.")
    reason: str = Field(min_length=1, description="Why the loss is accepted, such as an issue.")
    owner: str | None = None
    expires: dt.date = Field(description="The last day it holds, as 2026-03-31.")
    max: LimitField | None = Field(
        default=None, description="Waived only while within this looser limit."
    )
    min: LimitField | None = None

    @field_validator("expires", mode="before")
    @classmethod
    def _date(cls, value: Any) -> Any:
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            return value
        try:
            return dt.date.fromisoformat(str(value))
        except ValueError:
            raise ValueError(f"must be a date such as 2026-03-31 (got {str(value)!r})") from None


class PolicySpec(Spec):
    """One policy file."""

    version: Literal[1] = 1
    name: str | None = Field(default=None, min_length=1, description="Default: the file's name.")
    extends: str | None = Field(
        default=None,
        description="evalharness:recommended, evalharness:strict, or a file relative to this.",
    )
    confidence: float | None = Field(
        default=None, description="Of each verdict, one-sided: in (0.5, 1). Default: 0.95."
    )
    baseline: str | None = Field(
        default=None, description="A stored run (`evalharness baseline save`)."
    )
    on_incomplete: Blocks | None = Field(
        default=None,
        description="Whether it blocks that no gate which could is about what the candidate does, "
        "only about bytes or about what was not measured, or that none can. Default: block.",
    )
    defaults: Settings = Settings()
    gates: tuple[GateSpec, ...] = ()
    waivers: tuple[WaiverSpec, ...] = ()

    @field_validator("confidence")
    @classmethod
    def _confidence(cls, value: float | None) -> float | None:
        if value is not None and not 0.5 < value < 1:
            raise ValueError(f"must be a fraction above 0.5 and below 1, as 0.95 (got {value:g})")
        return value


@dataclass(frozen=True)
class Place:
    """Where in which file something stands."""

    file: YamlFile
    key: KeyPath

    def error(self, message: str, key: KeyPath = (), remedy: str | None = None) -> InputError:
        """An `InputError` that points at ``key`` below this place."""
        return self.file.error(message, (*self.key, *key), remedy)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A rule with every default filled in, and where each of its keys stands."""

    id: str
    metric: str
    scope: Globs
    max: Limit | None
    min: Limit | None
    relative_to: Literal["reference", "baseline"] | None
    each: bool
    aggregate: Literal["worst", "mean"]
    unless: Unless | None
    decide: Decide
    severity: Severity
    min_n: int | None  # None: the metric's own
    on_missing: OnMissing
    on_inconclusive: Blocks
    on_anomalous: Blocks
    place: Place = field(repr=False, compare=False)
    places: Mapping[str, Place] = field(repr=False, compare=False, default_factory=dict)

    @property
    def file(self) -> str:
        """The file that gave the gate, or changed it last."""
        return str(self.place.file.path)

    @property
    def line(self) -> int | None:
        """Its line there."""
        return self.place.file.line(self.place.key)

    def error(self, message: str, key: KeyPath = (), remedy: str | None = None) -> InputError:
        """An `InputError` that points at ``key`` of the gate, in the file that gave that key."""
        if key and key[0] in self.places:
            return self.places[str(key[0])].error(message, key[1:], remedy)
        return self.place.error(message, key, remedy)


@dataclass(frozen=True)
class GivenWaiver:
    """A waiver and where it stands."""

    spec: WaiverSpec
    place: Place = field(repr=False, compare=False)


@dataclass(frozen=True)
class Policy:
    """Every rule that applies, extended policies and defaults worked in."""

    name: str
    path: Path
    confidence: float
    baseline: Path | None
    on_anomalous: Blocks  # of the run as a whole; a gate may say otherwise for itself
    gates: tuple[Gate, ...]
    waivers: tuple[GivenWaiver, ...]
    baseline_place: Place | None = field(default=None, repr=False, compare=False)
    on_incomplete: Blocks = "block"
    sources: tuple[Path, ...] = field(default=(), compare=False)  # every file that it is made of

    def gate(self, gate_id: str) -> Gate | None:
        """The gate of that id."""
        return next((gate for gate in self.gates if gate.id == gate_id), None)
