"""A gate relative to a baseline: what this run measured against what another did.

The stored value is an estimate as much as this run's. Where the baseline keeps what a mean is
made of, the interval judged is that of the difference, document by document or item by item, over
those that both runs have. What has no such parts (a quantile, a layer's error) is judged with both
errors, the root of the sum of their squares (Zou & Donner 2008): too wide where the documents are
the same, and never too narrow. An estimate without an interval decides nothing.

Everything is shown at the height of this run's value: the limit is what the baseline allows, and
the ends are as far from it as those of the difference are from 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.special import ndtri, stdtrit

from evalharness.gates.baseline import StoredBaseline, refuse_incomparable
from evalharness.gates.judgement import only_finite
from evalharness.gates.limits import Side, Threshold
from evalharness.metrics import REGISTRY, Estimates
from evalharness.metrics.scopes import of_tasks
from evalharness.spec.estimate import Estimate, Scope
from evalharness.spec.limit import Limit
from evalharness.spec.policy import Gate
from evalharness.stats import PROCESSES


@dataclass(frozen=True)
class Ratchet:
    """A baseline, and the run that is held against it."""

    baseline: StoredBaseline
    estimates: Estimates
    identity: Mapping[str, str]  # of the run

    def judged(
        self, gate: Gate, side: Side, limit: Limit, found: Estimate, confidence: float
    ) -> tuple[Estimate, Threshold, str]:
        """What is judged of ``found``, the limit that it is held to, and how that came about.

        ``confidence`` is two-sided, of the interval.
        """
        stored = self._stored(gate, found.scope)
        allowed = Allowed(limit, stored)
        if found.value is None or REGISTRY[gate.metric].deterministic:
            return found, Threshold.at(side, allowed(allowed.value)), ""
        paired = self._paired(gate, found, allowed, confidence)
        if paired is not None:
            one, base, note = paired
            return one, Threshold.at(side, allowed(base)), note
        refuse_incomparable(gate, self.baseline, self.identity, "data")
        at = Threshold.at(side, allowed(allowed.value))
        blind = stored.low is None or stored.high is None
        if blind and REGISTRY[gate.metric].of_processes:  # one process's value, whoever looks at it
            return found, replace(at, unknown=self._unknown(stored)), ""
        if gate.decide == "point" or found.low is None:
            return found, at, ""
        if blind:
            return found, replace(at, unknown=self._unknown(stored)), ""
        return (
            both_errors(found, stored, allowed.slopes, confidence),
            at,
            ", not paired: both errors count",
        )

    def _stored(self, gate: Gate, scope: Scope) -> Estimate:
        stored = self.baseline.estimate(gate.metric, scope)
        if stored is None or stored.value is None:
            raise gate.error(
                f"the baseline {self.baseline.path} has no {gate.metric} for {dict(scope)}",
                ("relative_to",),
                "Save one from a run that measured it: evalharness baseline save RUN.",
            )
        if REGISTRY[gate.metric].of_processes and PROCESSES not in stored.method:
            # Of a version that took the batches of one process for independent.
            bare = {"low": None, "high": None, "reason": "it was measured in one process"}
            return stored.model_copy(update=bare)
        return stored

    def _unknown(self, stored: Estimate) -> str:
        why = f" ({stored.reason})" if stored.reason else ""
        return (
            f"{self.baseline.path} keeps a {stored.id} without an interval{why}, and nothing is "
            "known of its error; if its run has one, save it again: evalharness baseline save RUN "
            "--to FILE"
        )

    def _paired(
        self, gate: Gate, found: Estimate, allowed: Allowed, confidence: float
    ) -> tuple[Estimate, float, str] | None:
        """``found`` with the interval of its differences to the baseline, and the baseline's value.

        Both over the documents that both have; None where there are none.
        """
        kept = self.baseline.outcomes
        if not self.baseline.kept.series:
            return None
        ends, last = [], None
        for slope in allowed.slopes:
            last = self.estimates.against(gate.metric, found.scope, kept, slope, confidence)
            if last is None:
                return None
            low, high = last.interval.low, last.interval.high
            ends.append((low, high, slope * last.stored))
        assert last is not None
        interval = last.interval
        whole = all(low is not None for low, _, _ in ends)
        one = found.model_copy(
            update={
                "value": last.value,
                "low": min(low + at for low, _, at in ends if low is not None) if whole else None,
                "high": max(up + at for _, up, at in ends if up is not None) if whole else None,
                "confidence": confidence,
                "method": f"difference to the baseline by document, {interval.method}",
                "n": interval.n,
                "clusters": last.shared,
                "se": interval.se,
                "reason": interval.reason,
            }
        )
        what = "items" if of_tasks(found.scope) else "documents"
        some = f" of {last.here:,}" if last.shared < last.here else ""
        note = f", by the difference in each of {last.shared:,}{some} {what} that both runs have"
        return only_finite(one), last.stored, note


class Allowed:
    """What a limit allows of a stored value v: v + a, or v + p·|v|."""

    def __init__(self, limit: Limit, stored: Estimate) -> None:
        assert stored.value is not None
        self.value = stored.value
        self._share = limit.number if limit.suffix == "%" else 0.0
        self._more = 0.0 if limit.suffix == "%" else limit.number
        # Of which sign the true value is may not be known: then both slopes are judged.
        low, high = stored.low, stored.high
        self._either = low is None or high is None or low < 0 < high

    def __call__(self, stored: float) -> float:
        """The limit where the stored value is ``stored``."""
        return stored + self._share * abs(stored) + self._more

    @property
    def slopes(self) -> tuple[float, ...]:
        """How fast it moves with the stored value."""
        up, down = 1 + self._share, 1 - self._share
        if up == down:
            return (1.0,)
        return (up, down) if self._either else ((down if self.value < 0 else up),)


def both_errors(
    found: Estimate, stored: Estimate, slopes: Sequence[float], confidence: float
) -> Estimate:
    """``found`` with ``slopes`` times the stored error added to its own, at ``confidence``."""
    value, low, high = found.value, found.low, found.high
    assert value is not None
    assert low is not None
    assert high is not None
    below, above = _errors(stored, confidence)
    ends = []
    for slope in slopes:
        down, up = (below, above) if slope >= 0 else (above, below)
        ends.append(
            (
                value - math.hypot(value - low, slope * up),
                value + math.hypot(high - value, slope * down),
            )
        )
    return found.model_copy(
        update={
            "low": min(low for low, _ in ends),
            "high": max(high for _, high in ends),
            "method": f"{found.method}, and the baseline's error",
        }
    )


def _errors(stored: Estimate, confidence: float) -> tuple[float, float]:
    """How far below and above its value a stored interval reaches, at ``confidence`` at least."""
    assert stored.value is not None
    assert stored.low is not None
    assert stored.high is not None
    wider = max(1.0, _t(stored, confidence) / _t(stored, stored.confidence))
    return wider * (stored.value - stored.low), wider * (stored.high - stored.value)


def _t(stored: Estimate, confidence: float) -> float:
    at = 0.5 + confidence / 2
    return float(stdtrit(stored.clusters - 1, at) if stored.clusters > 1 else ndtri(at))
