"""Waivers: a gate suspended by someone, for a reason, until a day, and never in silence.

A waiver accepts a loss that is known. It never covers data that cannot be trusted (ANOMALOUS), nor
what is beyond its cap, and it ends the day after ``expires``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from evalharness.gates.scopes import covers
from evalharness.spec.limit import Limit
from evalharness.spec.policy import Gate, GivenWaiver
from evalharness.spec.result import Verdict, Waiver

EXPIRING = dt.timedelta(days=14)


class Waivers:
    """The waivers of a policy on one day, and which of them were needed."""

    def __init__(self, given: Sequence[GivenWaiver], today: dt.date) -> None:
        self._given = given
        self._today = today
        self._used: set[int] = set()
        self._needed: set[int] = set()

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
                remarks.append(f"Its waiver expired on {spec.expires}.")
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

    def results(self) -> list[Waiver]:
        """Every waiver with its state, used or not."""
        return [
            Waiver(
                gate=w.spec.gate,
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
            if state == "expired":
                advice = "" if index in self._needed else "; nothing needs it now, remove it"
                texts.append(f"{what}: expired on {spec.expires}{advice}")
            elif state == "unused":
                why = "its cap is not kept" if index in self._needed else "the gate passes without"
                texts.append(f"{what}: unused, {why}")
            elif state == "expiring":
                left = (spec.expires - self._today).days
                texts.append(f"{what}: expires on {spec.expires}, in {left} days")
        return texts

    def _expired(self, waiver: GivenWaiver) -> bool:
        return self._today > waiver.spec.expires

    def _state(self, index: int) -> Literal["active", "expiring", "expired", "unused"]:
        waiver = self._given[index]
        if self._expired(waiver):
            return "expired"
        if index not in self._used:
            return "unused"
        return "expiring" if waiver.spec.expires - self._today <= EXPIRING else "active"
