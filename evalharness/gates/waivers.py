"""Waivers: a gate suspended by someone, for a reason, until a day, and never in silence.

A waiver accepts a loss that is known. It never covers data that cannot be trusted (ANOMALOUS), nor
what is beyond its cap, and it ends the day after ``expires``. From then on it fails, needed or not:
it was a promise to be done by a day, and the file still says that it is not.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from evalharness.errors import plural
from evalharness.gates.policy_files import default_id
from evalharness.gates.scopes import covers
from evalharness.spec.estimate import Verdict
from evalharness.spec.limit import Limit
from evalharness.spec.policy import Gate, GivenWaiver, Policy, WaiverSpec
from evalharness.spec.result import GateResult, Waiver

EXPIRING = dt.timedelta(days=14)


def expired(waiver: GivenWaiver, today: dt.date) -> bool:
    """Whether its last day is over."""
    return today > waiver.spec.expires


def waiver_id(waiver: GivenWaiver) -> str:
    """What its result is called: ``waiver of tasks[task=arc_easy]``."""
    return f"waiver of {default_id(waiver.spec.gate, waiver.spec.match)}"


def _named(spec: WaiverSpec) -> str:
    return f"({spec.reason}; owner: {spec.owner or 'none'})"


class Waivers:
    """The waivers of a policy on one day, and which of them were needed."""

    def __init__(self, given: Sequence[GivenWaiver], today: dt.date) -> None:
        self._given = given
        self._today = today
        self._used: set[int] = set()
        self._needed: set[int] = set()
        self._told: set[int] = set()  # expired, and named by a gate that FAILs without it

    def covering(
        self,
        gate: Gate,
        scope: Mapping[str, str],
        verdict: Verdict,
        keeps: Callable[[Limit | None, Limit | None], bool],
    ) -> tuple[str | None, str]:
        """The reason of the waiver that covers a verdict, or None; and a remark for its reason.

        ``keeps`` says whether the estimate passes the looser limits of a waiver.
        """
        if verdict in ("PASS", "ANOMALOUS"):
            return None, ""
        remarks = []
        for index, waiver in enumerate(self._given):
            spec = waiver.spec
            if spec.gate != gate.id or not covers(spec.match, scope):
                continue
            self._needed.add(index)
            if self._expired(waiver):
                remarks.append(f"Its waiver {_named(spec)} expired on {spec.expires}.")
                if verdict == "FAIL":
                    self._told.add(index)
                continue
            capped = spec.max is not None or spec.min is not None
            if capped and not keeps(spec.max, spec.min):
                caps = " and ".join(str(cap) for cap in (spec.max, spec.min) if cap is not None)
                remarks.append(f"Its waiver holds up to {caps} only, which this does not keep.")
                continue
            self._used.add(index)
            by = f" ({spec.owner})" if spec.owner else ""
            return spec.reason, f"Waived until {spec.expires}{by}: {spec.reason}"
        return None, " ".join(remarks)

    def failures(self, policy: Policy) -> list[GateResult]:
        """A FAIL for each expired waiver that no failing gate has named already."""
        rows = []
        for index, waiver in enumerate(self._given):
            spec, gate = waiver.spec, policy.gate(waiver.spec.gate)
            if gate is None or not self._expired(waiver) or index in self._told:
                continue
            needed = index in self._needed
            now = "the gate does not pass without it" if needed else "nothing needs it now"
            rows.append(
                GateResult(
                    id=waiver_id(waiver),
                    rule=waiver_id(waiver),
                    metric=gate.metric,
                    scope=spec.match,
                    verdict="FAIL",
                    observed=None,
                    severity=gate.severity,
                    blocking=gate.severity == "error",
                    confidence=policy.confidence,
                    reason=f"The waiver of {gate.id} {_named(spec)} expired on {spec.expires}, and "
                    f"{now}: {'renew it with a new date, or ' if needed else ''}remove it.",
                    file=str(waiver.place.file.path),
                    line=waiver.place.file.line(waiver.place.key),
                )
            )
        return rows

    def results(self) -> list[Waiver]:
        """Every waiver with its state, used or not."""
        return [
            Waiver(
                gate=w.spec.gate,
                match=w.spec.match,
                reason=w.spec.reason,
                owner=w.spec.owner,
                expires=w.spec.expires.isoformat(),
                state=self._state(index),
            )
            for index, w in enumerate(self._given)
        ]

    def warnings(self) -> list[str]:
        """What its owner should hear of each waiver."""
        texts = []
        for index, waiver in enumerate(self._given):
            spec, state = waiver.spec, self._state(index)
            what = f"waiver of {spec.gate} ({spec.reason})"
            if state == "unused":
                why = "its cap is not kept" if index in self._needed else "the gate passes without"
                texts.append(f"{what}: unused, {why}")
            elif state == "expiring":
                left = (spec.expires - self._today).days
                texts.append(f"{what}: expires on {spec.expires}, in {plural(left, 'day')}")
        return texts

    def _expired(self, waiver: GivenWaiver) -> bool:
        return expired(waiver, self._today)

    def _state(self, index: int) -> Literal["active", "expiring", "expired", "unused"]:
        waiver = self._given[index]
        if self._expired(waiver):
            return "expired"
        if index not in self._used:
            return "unused"
        return "expiring" if waiver.spec.expires - self._today <= EXPIRING else "active"
