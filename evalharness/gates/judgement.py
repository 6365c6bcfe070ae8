"""One estimate against its limits.

The interval comes at 2c − 1, so each of its ends is a one-sided bound at the policy's confidence c.
PASS when all of it is inside the limits, FAIL when all of it is outside one, INCONCLUSIVE
otherwise. What cannot be trusted (no value, no interval, one document) is INCONCLUSIVE before any
limit is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evalharness.gates.limits import Threshold, counted, fewest, whose_fewest
from evalharness.spec.estimate import Estimate, Verdict
from evalharness.spec.policy import Gate
from evalharness.stats.interval import Interval
from evalharness.stats.p_values import interval_p_value


@dataclass(frozen=True)
class Judgement:
    """What was decided of one estimate, by which end against which limit, and why."""

    verdict: Verdict
    estimate: Estimate
    limit: Threshold | None = None
    bound: float | None = None
    p: float | None = None  # of "the limit is kept"; None where the verdict is not a test
    further: int | None = None
    why: str = ""
    level: float | None = None  # of significance that a withdrawn FAIL would have had to reach

    def withdrawn(self, level: float, tests: int) -> Judgement:
        """The FAIL that does not survive the correction for ``tests`` tests."""
        return replace(
            self,
            verdict="INCONCLUSIVE",
            level=level,
            why=f"outside the limit on its own (p = {self.p:.2g}), but {tests} limits are tested, "
            f"and after Holm's correction it takes p at most {level:.2g}",
        )

    def beside_noise(self, reason: str) -> Judgement:
        """The PASS that rounding alone might have broken, as far as anybody knows."""
        why = f"its noise floor was not measured ({reason}), so the limit may lie inside it"
        return replace(self, verdict="INCONCLUSIVE", why=why)


def only_finite(estimate: Estimate) -> Estimate:
    """The estimate with NaN, infinities and half an interval taken out."""
    numbers = [estimate.value, estimate.low, estimate.high]
    value, low, high = (x if x is not None and math.isfinite(x) else None for x in numbers)
    if [value, low, high] == numbers and (low is None) == (high is None):
        return estimate
    ends = (None, None) if value is None or low is None or high is None else (low, high)
    reason = estimate.reason or "it is not a finite number"
    changed = {"value": value, "low": ends[0], "high": ends[1], "reason": reason}
    return estimate.model_copy(update=changed)


def judge_case(
    gate: Gate,
    estimate: Estimate,
    limits: Sequence[Threshold],
    deterministic: bool,
    confidence: float,
) -> Judgement:
    """Decide ``estimate``, whose interval is at 2·``confidence`` − 1, against ``limits``."""
    value = estimate.value
    limit = _nearest(value, limits)
    if value is None:
        return _undecided(estimate, limit, _because("it was not computed", estimate.reason))
    for one in limits:
        if one.unknown is not None:
            return _undecided(estimate, limit, f"the limit is not known: {one.unknown}")
    if estimate.at_least:
        return _bounded(gate, estimate, limits, confidence)
    if deterministic:
        return _decided(estimate, limits, value, value, confidence, exact=True)
    low, high = estimate.low, estimate.high
    least = fewest(gate)
    if estimate.clusters < least:
        few = _because(
            f"it rests on {estimate.clusters} of the {least} {counted(gate)} it takes, "
            f"{whose_fewest(gate)}",
            estimate.reason,
        )
        return replace(_undecided(estimate, limit, few), further=least - estimate.clusters)
    if low is None or high is None:
        return _undecided(estimate, limit, _because("it has no interval", estimate.reason))
    if gate.decide == "point":
        return _decided(estimate, limits, value, value, confidence, exact=True)
    judged = _decided(estimate, limits, low, high, confidence, exact=False)
    value_is_inside = all(one.inside(value, value) for one in limits)
    if gate.decide == "not-worse" and judged.verdict == "INCONCLUSIVE" and value_is_inside:
        return replace(judged, verdict="PASS", bound=value, why="")
    return judged


def _bounded(
    gate: Gate, estimate: Estimate, limits: Sequence[Threshold], confidence: float
) -> Judgement:
    """A lower bound: FAIL where its own lower end is above a limit, and never PASS."""
    few = estimate.clusters < fewest(gate)
    low = estimate.value if gate.decide == "point" and not few else estimate.low
    if low is not None and not few and gate.relative_to != "baseline":
        judged = _decided(estimate, limits, low, math.inf, confidence, exact=False)
        if judged.verdict == "FAIL":
            return judged
    why = "it is a lower bound, of a server's few log-probabilities, which never passes a limit"
    return _undecided(estimate, _nearest(estimate.value, limits), why)


def strictest(judged: Sequence[Judgement]) -> Judgement:
    """Several limits of one gate, each judged by itself, as one: all must be kept."""
    for verdict in ("FAIL", "ANOMALOUS", "INCONCLUSIVE"):
        found = next((one for one in judged if one.verdict == verdict), None)
        if found is not None:
            break
    else:
        found = min(judged, key=_room)
    p = min((one.p for one in judged if one.p is not None), default=None)
    return replace(found, p=p)


def _room(judged: Judgement) -> float:
    value, limit = judged.estimate.value, judged.limit
    if value is None or limit is None or limit.value is None:
        return 0.0
    return abs(value - limit.value)


def _decided(
    estimate: Estimate,
    limits: Sequence[Threshold],
    low: float,
    high: float,
    confidence: float,
    exact: bool,
) -> Judgement:
    broken = [one for one in limits if one.outside(low, high)]
    p = None if exact else _p_value(estimate, limits, confidence)
    if broken:
        limit = broken[0]
        return Judgement("FAIL", estimate, limit, low if limit.side == "max" else high, p)
    open_ = [one for one in limits if not one.inside(low, high)]
    limit = (open_ or [_nearest(estimate.value, limits)])[0]
    bound = high if limit.side == "max" else low
    if not open_:
        return Judgement("PASS", estimate, limit, bound, p)
    known = limit.strict == limit.loose
    why = "the interval holds the limit" if known else "the limit itself is not known well enough"
    return Judgement("INCONCLUSIVE", estimate, limit, bound, p, None, why)


def interval_of(estimate: Estimate, confidence: float) -> Interval:
    """The estimate as `evalharness.stats` takes it; ``confidence`` is one-sided."""
    return Interval(
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        confidence=two_sided(confidence),
        n=estimate.n,
        clusters=estimate.clusters,
        method=estimate.method,
        se=estimate.se,
        reason=estimate.reason or "it is not said why",
    )


def two_sided(confidence: float) -> float:
    """2c − 1, rounded: 0.9 for 0.95 and not 0.8999…"""
    return round(2 * confidence - 1, 12)


def _p_value(estimate: Estimate, limits: Sequence[Threshold], confidence: float) -> float | None:
    """Of every limit being kept: one-sided, at most 1 − ``confidence`` exactly where FAIL is."""
    found = [
        interval_p_value(
            interval_of(estimate, confidence),
            one.loose,
            "above" if one.side == "max" else "below",
        )
        for one in limits
    ]
    return min((p for p in found if p is not None), default=None)


def _nearest(value: float | None, limits: Sequence[Threshold]) -> Threshold:
    """The limit to show: the one that ``value`` is closest to."""
    known = [one for one in limits if one.value is not None]
    if value is None or not known:
        return limits[0]
    return min(known, key=lambda one: abs(value - (one.value or 0.0)))


def _undecided(estimate: Estimate, limit: Threshold, why: str) -> Judgement:
    return Judgement("INCONCLUSIVE", estimate, limit, why=why)


def _because(why: str, reason: str | None) -> str:
    return f"{why} ({reason})" if reason else why
