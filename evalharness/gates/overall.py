"""The verdict of a whole policy, its sentence and its exit code.

    verdict        when                                                       exit code
    FAIL           a blocking gate FAILs                                      1
    ANOMALOUS      a gate is ANOMALOUS, or the run is                         3, or 0 if let through
    INCONCLUSIVE   a gate is INCONCLUSIVE, or the run is incomplete           3, or 0 if let through
    PASS           every gate of severity error passes or is waived           0

The first that applies, over gates of severity error. The verdict says what is known, the exit code
whether the policy blocks on it: with ``on_inconclusive: warn`` an INCONCLUSIVE policy exits 0 and
is still not called a PASS. A run is incomplete where no gate that could block is about anything
measured of what the candidate does: bytes are counted whatever became of the pass, and a policy of
which no gate can block decides nothing. ANOMALOUS exits
3 and not 1: the data cannot be trusted, so that nothing is known of the candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evalharness.gates.scopes import covers
from evalharness.gates.waivers import Waivers
from evalharness.gates.wording import more
from evalharness.metrics import REGISTRY
from evalharness.spec.estimate import Verdict
from evalharness.spec.policy import Policy
from evalharness.spec.result import Anomaly, GateResult, Waiver

INCOMPLETE = (
    "The run is incomplete for this policy: no gate that could block is about anything measured of "
    "what the candidate does, only about its weights and bytes or about what was not measured."
)

UNABLE = "No gate has severity error, so nothing can block and nothing is decided."


@dataclass(frozen=True)
class Decision:
    """Everything that was decided."""

    policy: str  # its name
    gates: list[GateResult]
    waivers: list[Waiver]
    verdict: Verdict
    headline: str  # one sentence
    exit_code: int
    warnings: list[str]
    objections: list[str]  # of the run itself, which block whatever the gates say


def overall(
    policy: Policy,
    gates: Sequence[GateResult],
    waivers: Waivers,
    anomalies: Sequence[Anomaly],
) -> Decision:
    """Bring the gates' results together."""
    # A waived FAIL is accepted; a gate that only warns is no part of the verdict.
    counted = [g for g in gates if g.severity == "error" and g.waiver is None]
    by = {v: [g for g in counted if g.verdict == v] for v in ("FAIL", "ANOMALOUS", "INCONCLUSIVE")}
    of_run = _of_run(policy, counted, anomalies)
    able = any(g.severity == "error" for g in gates)
    incomplete = INCOMPLETE if able else UNABLE
    if any(_of_the_candidate(g) for g in gates):
        incomplete = ""
    verdict: Verdict
    distrusted = of_run if policy.on_anomalous == "block" else []
    objections = [_untrusted(anomaly.message) for anomaly in distrusted]
    if by["FAIL"]:
        verdict = "FAIL"
    elif by["ANOMALOUS"] or of_run:
        verdict = "ANOMALOUS"
    elif by["INCONCLUSIVE"] or incomplete:
        verdict = "INCONCLUSIVE"
        objections += [incomplete] if incomplete and policy.on_incomplete == "block" else []
    else:
        verdict = "PASS"
    blocks = bool(objections) or any(g.blocking and g.verdict != "PASS" for g in gates)
    return Decision(
        policy=policy.name,
        gates=list(gates),
        waivers=waivers.results(),
        verdict=verdict,
        headline=_headline(verdict, gates, by.get(verdict, []), anomalies, incomplete),
        exit_code=(1 if verdict == "FAIL" else 3) if blocks else 0,
        warnings=_warnings(gates) + waivers.warnings(),
        objections=objections,
    )


def _of_run(
    policy: Policy, counted: Sequence[GateResult], anomalies: Sequence[Anomaly]
) -> list[Anomaly]:
    """The anomalies that no gate which counts is ANOMALOUS or FAILs for."""
    told = {g.rule for g in counted if g.verdict in ("ANOMALOUS", "FAIL")}
    telling = [gate for gate in policy.gates if gate.id in told]

    def is_told(anomaly: Anomaly) -> bool:
        return any(
            gate.metric == anomaly.metric and covers(gate.scope, anomaly.scope) for gate in telling
        )

    return [a for a in anomalies if not is_told(a)]


def _of_the_candidate(gate: GateResult) -> bool:
    """Whether a gate that could block is about something measured, and not counted, of it."""
    measured = gate.observed is not None and not REGISTRY[gate.metric].deterministic
    return measured and gate.severity == "error"


def _headline(
    verdict: Verdict,
    gates: Sequence[GateResult],
    behind: Sequence[GateResult],
    anomalies: Sequence[Anomaly],
    incomplete: str,
) -> str:
    total = len(gates)
    if verdict == "ANOMALOUS":
        why = anomalies[0].message if anomalies else behind[0].reason.rstrip(".")
        return _untrusted(why)
    if verdict == "INCONCLUSIVE" and incomplete:
        return incomplete
    if verdict == "PASS":
        passed = sum(g.verdict == "PASS" for g in gates)
        waived = sum(g.waiver is not None for g in gates)
        rest = total - passed - waived
        text = f"{passed} of {_gates(total)} {'passes' if passed == 1 else 'pass'}"
        text += f", {waived} waived" if waived else ""
        return text + (f", {rest} without blocking" if rest else "") + "."
    count = len(behind)
    singular, plural = ("fails", "fail") if verdict == "FAIL" else ("is undecided", "are undecided")
    verb = singular if count == 1 else plural
    names = ", ".join(g.id for g in behind[:3]) + (f" and {count - 3} more" if count > 3 else "")
    text = f"{count} of {_gates(total)} {verb}: {names}."
    if anomalies:  # only beside FAIL, which outranks it
        why = anomalies[0].message
        text += f" The run is anomalous, too: {why}" + ("" if why.endswith("?") else ".")
    further = [g for g in behind if g.further_documents and not REGISTRY[g.metric].of_processes]
    if verdict == "INCONCLUSIVE" and further:
        count = max(g.further_documents or 0 for g in further)
        text += f" About {more(count)} would settle it."
    return text


def _untrusted(why: str) -> str:
    return f"The run cannot be trusted: {why}" + ("" if why.endswith("?") else ".")


def _gates(count: int) -> str:
    return f"{count} gate{'' if count == 1 else 's'}"


def _warnings(gates: Sequence[GateResult]) -> list[str]:
    """Gates that did not pass and do not block."""
    return [
        f"{g.id}: {g.verdict}, which does not block here"
        for g in gates
        if g.verdict != "PASS" and not g.blocking and g.waiver is None and g.severity != "info"
    ]
