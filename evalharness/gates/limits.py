"""What a limit comes to in numbers, and where its own uncertainty lies.

Most limits are a number. One relative to the reference is a share of a value that was itself
measured, and a trade-off is one of two numbers as long as its condition is undecided: both give a
*strict* end, which a PASS must keep, and a *loose* end, which a FAIL must break.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

from evalharness.gates.suffix import own_value
from evalharness.metrics import REGISTRY, Metric
from evalharness.metrics.scopes import of_tasks
from evalharness.spec.estimate import Estimate
from evalharness.spec.limit import Limit
from evalharness.spec.policy import Gate, Policy

Side = Literal["max", "min"]


@dataclass(frozen=True)
class Threshold:
    """A limit in the metric's unit; ``unknown`` says why it could not be computed."""

    side: Side
    value: float | None
    strict: float = math.nan
    loose: float = math.nan
    unknown: str | None = None

    @classmethod
    def at(cls, side: Side, *values: float) -> Threshold:
        """The limit ``values[0]``, which could be as far off as any of ``values``."""
        low, high = min(values), max(values)
        strict, loose = (low, high) if side == "max" else (high, low)
        return cls(side, values[0], strict, loose)

    def inside(self, low: float, high: float) -> bool:
        """True when all of ``low`` … ``high`` is on the good side, the limit itself included."""
        return high <= self.strict if self.side == "max" else low >= self.strict

    def outside(self, low: float, high: float) -> bool:
        """True when all of it is on the bad side."""
        return low > self.loose if self.side == "max" else high < self.loose

    def or_else(self, other: Threshold) -> Threshold:
        """This limit or the looser ``other``, which of them being undecided."""
        return Threshold(self.side, self.value, self.strict, other.loose, self.unknown)


def fewest(gate: Gate) -> int:
    """How many documents or items a verdict of ``gate`` must rest on: its own, or its metric's.

    What a policy asks of all its gates is a number of documents. Of processes there are at least as
    many as the metric says, and more where the gate itself asks for them.
    """
    metric = REGISTRY[gate.metric]
    if not metric.of_processes:
        return metric.min_n if gate.min_n is None else gate.min_n
    return max(metric.min_n, gate.min_n or 0) if "min_n" in gate.places else metric.min_n


def counted(gate: Gate) -> str:
    """What those are."""
    return "fresh processes" if REGISTRY[gate.metric].of_processes else "documents or items"


def has_own_fewest(gate: Gate) -> bool:
    """Whether it is the metric that says so, and not the policy."""
    return gate.min_n is None or (REGISTRY[gate.metric].of_processes and fewest(gate) != gate.min_n)


def whose_fewest(gate: Gate) -> str:
    """Who says so, in words."""
    return f"{gate.metric}'s own minimum" if has_own_fewest(gate) else "the policy's min_n"


def about(gate: Gate, metric: str) -> Gate:
    """``gate`` with another metric in place of its own, as a condition of it is decided."""
    places = gate.places
    if REGISTRY[metric].of_processes and metric != gate.metric:  # its min_n counts documents
        places = {key: place for key, place in places.items() if key != "min_n"}
    return replace(gate, metric=metric, places=places)


def own_confidence(gate: Gate, confidence: float) -> float:
    """What each route of ``gate`` to a PASS is held to: they share the chance to be wrong.

    A condition on what is counted is no test, and takes no share.
    """
    conditions = gate.unless.any if gate.unless else ()
    tests = sum(not REGISTRY[c.metric].deterministic for c in conditions)
    return 1 - (1 - confidence) / (1 + tests)


def tightened(side: str, limit: Limit | None, other: Limit | None) -> bool:
    """True when ``other`` is tighter than ``limit``."""
    if limit is None or other is None:
        return False
    return other.number < limit.number if side == "max" else other.number > limit.number


def threshold(
    gate: Gate,
    side: Side,
    limit: Limit,
    scope: dict[str, str],
    estimate: Callable[[str, dict[str, str]], Estimate],
) -> Threshold:
    """The limit of ``gate`` in one scope; ``estimate`` gives what the run measured.

    One relative to a baseline is not among them: `ratchet` judges the two together.
    """
    if gate.relative_to == "reference":
        metric = own_value(REGISTRY[gate.metric])
        assert metric is not None  # `check_policy` refuses a gate without one
        own = estimate(metric, scope)
        return _of_reference(side, limit.number, own, gate.decide == "point")
    return Threshold.at(side, limit.number)


def _of_reference(side: Side, share: float, own: Estimate, point: bool) -> Threshold:
    """``share`` of the reference's own value, whose error is carried over.

    Judging with both intervals' ends adds their half-widths, which is never narrower than the
    interval of the difference: it costs a little power and no validity.
    """
    if own.value is None:
        return Threshold(side, None, unknown=f"{own.id} was not computed: {own.reason}")
    if point:
        return Threshold.at(side, share * abs(own.value))
    if own.low is None or own.high is None:
        return Threshold(side, None, unknown=f"{own.id} has no interval: {own.reason}")
    ends = [share * abs(own.low), share * abs(own.high)]
    if own.low < 0 < own.high:
        ends.append(0.0)
    return Threshold.at(side, share * abs(own.value), *ends)


def check_noise(gate: Gate, limit: Threshold, info: Metric, floor: float | None) -> None:
    """Refuse a limit that rounding alone could break."""
    best = info.ideal
    if best is None or floor is None or limit.value is None:
        return
    signed = info.difference or info.signed  # whose floor is an end of an interval
    more = ", or measure that over more windows (noise_floor: {windows: N})" if signed else ""
    if abs(limit.value - best) < abs(floor - best):
        raise gate.error(
            f"the limit {limit.value:.6g} is inside the noise floor: the reference against itself, "
            f"rounded differently, {'may show' if signed else 'already shows'} {floor:.6g}",
            (limit.side,),
            f"Give a limit further from {best:g} than the noise floor{more}.",
        )


def refuse_noise(policy: Policy, floors: Mapping[str, float]) -> None:
    """Refuse the limits inside the noise floor that are known before anything is measured."""
    for gate in policy.gates:
        if gate.relative_to is not None or of_tasks(gate.scope):
            continue
        for side, limit in (("max", gate.max), ("min", gate.min)):
            if limit is not None:
                at = Threshold.at(cast(Side, side), limit.number)
                check_noise(gate, at, REGISTRY[gate.metric], floors.get(gate.metric))
