"""What a gate is decided on: each scope it matches, judged by itself.

A gate without ``each`` is the conjunction of its matches, so that one bad layer cannot hide behind
twenty-nine good ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from evalharness.gates.judgement import (
    Judgement,
    interval_of,
    judge_case,
    only_finite,
    strictest,
    two_sided,
)
from evalharness.gates.limits import (
    Side,
    Threshold,
    about,
    check_noise,
    own_confidence,
    threshold,
)
from evalharness.gates.ratchet import Ratchet
from evalharness.gates.scopes import label, matching
from evalharness.gates.wording import numbers
from evalharness.metrics import REGISTRY, Estimates
from evalharness.spec.estimate import Estimate, Scope
from evalharness.spec.limit import Limit
from evalharness.spec.policy import Condition, Gate
from evalharness.spec.yamlfile import KeyPath
from evalharness.stats import MOST_CONFIDENT, TooFewReplicates, mean_of_parts

# Kinds of records that need no module of a model.
_OF_ANY_ENGINE = ("tokens", "documents", "items", "item_tokens", "manifest", "timings")


@dataclass(frozen=True)
class Case:
    """One gate in one scope (or over the mean of several), judged."""

    gate: Gate
    scope: Scope
    judged: Judgement
    note: str = ""  # how the limit came about, where it is not simply the gate's
    waiver: str | None = None  # the reason it is waived for
    remark: str = ""  # what a waiver or an anomaly adds to the reason

    @property
    def excess(self) -> float:
        """How far beyond the limit the value is; larger is worse, infinite when unknown."""
        limit, value = self.judged.limit, self.judged.estimate.value
        if limit is None or limit.value is None or value is None:
            return math.inf
        return value - limit.value if limit.side == "max" else limit.value - value


@dataclass(frozen=True)
class Bench:
    """What a policy is decided with."""

    estimates: Estimates
    ratchet: Ratchet | None  # where a baseline is given
    confidence: float  # of a verdict, one-sided

    @property
    def two_sided(self) -> float:
        """Confidence of the interval whose ends are one-sided bounds."""
        return two_sided(self.confidence)

    def cases(self, gate: Gate) -> Iterator[Case]:
        """``gate`` judged in every scope that it matches."""
        yield from map(self._beside_noise, self.of(gate)._cases(gate))

    def _beside_noise(self, case: Case) -> Case:
        """No PASS where nobody knows whether rounding alone would break the limit."""
        why = self.estimates.noise_unknown(case.gate.metric, case.scope)
        if why is None or case.judged.verdict != "PASS":
            return case
        return replace(case, judged=case.judged.beside_noise(why))

    def fails(self, case: Case, level: float) -> bool:
        """Whether a FAIL stands at the significance ``level``, below that of the policy.

        Where resampling cannot give so much confidence, at the most that it can, with its p-value
        going by that interval.
        """
        if 1 - level <= self.confidence:
            return True
        again = self._again(case, 1 - level)
        if again is not None:
            return again.verdict == "FAIL"
        again = self._again(case, MOST_CONFIDENT)
        return again is not None and again.verdict == "FAIL" and (again.p or 0.0) <= level

    def of(self, gate: Gate) -> Bench:
        """What ``gate`` is decided with: its routes to a PASS share the chance to be wrong."""
        return replace(self, confidence=own_confidence(gate, self.confidence))

    def at_once(self, case: Case) -> Estimate:
        """The estimate as it would be had nobody looked at the documents before the last."""
        gate = case.gate
        if gate.relative_to is not None or gate.aggregate == "mean":
            return case.judged.estimate
        return only_finite(self.estimates.at_once(gate.metric, case.scope, self.two_sided))

    def _again(self, case: Case, confidence: float) -> Judgement | None:
        """``case`` judged at another confidence; None where resampling cannot give it."""
        other = replace(self, confidence=confidence)
        try:
            if case.gate.aggregate == "mean":
                return next(other._cases(case.gate)).judged
            estimate = other.estimate(case.gate.metric, case.scope)
            return other._case(case.gate, case.scope, estimate, noise=False).judged
        except TooFewReplicates:
            return None

    def _cases(self, gate: Gate) -> Iterator[Case]:
        scopes = self._scopes(gate, gate.metric, gate.scope, ("scope",))
        if not scopes:
            yield Case(gate, {}, self._missing(gate))
        elif gate.aggregate == "mean" and len(scopes) > 1:
            yield self._mean(gate, scopes)
        else:
            for scope in scopes:
                estimate = self.estimate(gate.metric, scope)
                yield self._case(gate, scope, estimate)

    def estimate(self, metric: str, scope: Scope) -> Estimate:
        """What the run measured, its numbers finite or missing."""
        return only_finite(self.estimates.estimate(metric, scope, self.two_sided))

    def overlap(self, a: Scope, b: Scope) -> bool:
        """Whether two scopes of one lm-eval metric have tasks in common."""
        same = a.get("metric") == b.get("metric")
        return same and bool(self.estimates.leaves(a) & self.estimates.leaves(b))

    def keeps(self, case: Case, top: Limit | None, bottom: Limit | None) -> bool:
        """True when the case passes with these limits in place of its gate's."""
        if case.judged.limit is None:
            return False
        old = case.gate
        gate = replace(old, unless=None, max=top or old.max, min=bottom or old.min)
        estimate = case.judged.estimate
        if gate.relative_to == "baseline":  # whose interval depends on the limit
            estimate = self.estimate(gate.metric, case.scope)
        return self._case(gate, case.scope, estimate, noise=False).judged.verdict == "PASS"

    def _scopes(
        self, gate: Gate, metric: str, globs: Mapping[str, str], key: KeyPath
    ) -> list[Scope]:
        known = self.estimates.scopes(metric)
        found = matching(globs, known, self.estimates.leaves)
        if known and not found:
            alike = [scope for scope in known if set(scope) == set(globs)] or known
            names = [label(scope) or "everything" for scope in alike]
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            raise gate.error(
                f"'{label(globs)}' matches nothing that the run measured of {metric}",
                key,
                f"It has: {'; '.join(names[:8])}{more}.",
            )
        return found

    def _missing(self, gate: Gate) -> Judgement:
        estimate = Estimate(id=gate.metric, scope={}, value=None, reason="not measured")
        why = "was not measured in this run, and what is not measured does not pass"
        if REGISTRY[gate.metric].records not in _OF_ANY_ENGINE and (engine := self._apart()):
            why += f": {engine} has no modules to look at"
        return Judgement("FAIL" if gate.on_missing == "fail" else "INCONCLUSIVE", estimate, why=why)

    def _apart(self) -> str | None:
        """The engine that runs a side in a process of its own, where one does."""
        sides = self.estimates.evidence.run.manifest.get("sides") or {}
        return next((s["apart"] for s in sides.values() if s.get("apart")), None)

    def _case(self, gate: Gate, scope: Scope, estimate: Estimate, noise: bool = True) -> Case:
        if gate.relative_to == "baseline":
            return self._ratchet(gate, scope, estimate, noise)
        info = REGISTRY[gate.metric]
        limits, notes = [], []
        state, earned_by = self._earned(gate)
        for side, limit in _sides(gate.max, gate.min):
            one = self._threshold(gate, side, limit, scope)
            if gate.relative_to is not None:
                notes.append(f" ({limit} relative to the {gate.relative_to})")
            looser = getattr(gate.unless, side) if gate.unless else None
            if looser is not None:
                other = self._threshold(gate, side, looser, scope)
                shown = numbers(one.value, other.value)
                if state == "earned":
                    notes.append(f" (not {shown[0]}: earned by {earned_by})")
                    one = other
                elif state == "undecided":
                    notes.append(f" (or {shown[1]} if it is earned, which is undecided)")
                    one = one.or_else(other)
                else:
                    notes.append(f" ({shown[1]} is not earned)")
            if noise:
                check_noise(gate, one, info, estimate.noise_floor)
            limits.append(one)
        judged = judge_case(gate, estimate, limits, info.deterministic, self.confidence)
        return Case(gate, scope, judged, "".join(notes))

    def _threshold(self, gate: Gate, side: Side, limit: Limit, scope: Scope) -> Threshold:
        return threshold(gate, side, limit, scope, self.estimate)

    def _ratchet(self, gate: Gate, scope: Scope, estimate: Estimate, noise: bool) -> Case:
        """``gate`` held against a baseline, limit by limit: an interval belongs to its limit."""
        if self.ratchet is None:
            raise gate.error(
                "relative to a baseline, and none is given",
                ("relative_to",),
                "Give `baseline: FILE` in the policy; `evalharness baseline save RUN` makes one.",
            )
        info = REGISTRY[gate.metric]
        judged, notes = [], []
        for side, limit in _sides(gate.max, gate.min):
            found, one, how = self.ratchet.judged(gate, side, limit, estimate, self.two_sided)
            found = found.model_copy(update={"at_least": estimate.at_least})
            if noise:
                check_noise(gate, one, info, estimate.noise_floor)
            notes.append(f" ({limit} relative to the baseline{how})")
            judged.append(judge_case(gate, found, [one], info.deterministic, self.confidence))
        return Case(gate, scope, strictest(judged), "".join(notes))

    def _mean(self, gate: Gate, scopes: Sequence[Scope]) -> Case:
        """The mean over matches, with an interval made of theirs (MOVER).

        Of scopes that share documents or items it is not known how their errors correlate, and the
        mean of the half-widths is the half-width under full correlation: never too narrow.
        """
        parts = [self.estimate(gate.metric, scope) for scope in scopes]
        missing = next((e for e in parts if e.value is None or e.low is None), None)
        floors = [e.noise_floor for e in parts if e.noise_floor is not None]
        worst = max(parts, key=lambda e: self._case(gate, e.scope, e, noise=False).excess)
        blocks = self.estimates.together(scopes)
        found = mean_of_parts(
            [interval_of(e, self.confidence) for e in parts], [1 / len(parts)] * len(parts), blocks
        )
        mean = parts[0].model_copy(
            update={
                "scope": dict(gate.scope),
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "se": found.se,
                "n": found.n,
                "clusters": found.clusters,
                "noise_floor": sum(floors) / len(floors) if floors else None,
                "method": found.method,
                "reason": None if missing is None else f"{label(missing.scope)}: {missing.reason}",
                "worst": f"{label(worst.scope)} at {numbers(worst.value)[0]}",
            }
        )
        return self._case(gate, mean.scope, mean)

    def _earned(self, gate: Gate) -> tuple[Literal["earned", "undecided", "unearned"], str]:
        """Whether the looser limit of a trade-off holds, and what earned it."""
        if gate.unless is None:
            return "unearned", ""
        undecided = False
        for index, condition in enumerate(gate.unless.any):
            verdicts = list(self._condition(gate, condition, index))
            if verdicts and all(j.verdict == "PASS" for j in verdicts):
                values = numbers(*(j.estimate.value for j in verdicts))
                return "earned", f"{condition.metric} of {', '.join(values)}"
            undecided |= all(j.verdict != "FAIL" for j in verdicts)
        return ("undecided" if undecided else "unearned"), ""

    def _condition(self, gate: Gate, condition: Condition, index: int) -> Iterator[Judgement]:
        key = ("unless", "any", index, "scope")
        plain = replace(about(gate, condition.metric), unless=None, decide="confident")
        info = REGISTRY[condition.metric]
        limits = [Threshold.at(s, lim.number) for s, lim in _sides(condition.max, condition.min)]
        for scope in self._scopes(gate, condition.metric, condition.scope, key):
            estimate = self.estimate(condition.metric, scope)
            yield judge_case(plain, estimate, limits, info.deterministic, self.confidence)


def _sides(top: Limit | None, bottom: Limit | None) -> list[tuple[Side, Limit]]:
    pairs: list[tuple[Side, Limit | None]] = [("max", top), ("min", bottom)]
    return [(side, limit) for side, limit in pairs if limit is not None]
