"""A repair, the sensitivity ranking and a replayed evaluation as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalharness.errors import plural
from evalharness.report.numbers import figures
from evalharness.spec.module_results import Sensitivity
from evalharness.spec.result import GateResult, Repair


def repair_lines(repair: Repair) -> list[str]:
    """What a bisect found, for a terminal."""
    documents = plural(repair.held_out_documents, "held-out document")
    if repair.restored is None:
        return [
            f"no repair: {repair.reason}",
            f"{plural(repair.evaluations, 'evaluation')} over "
            f"{plural(repair.considered, 'module')}",
        ]
    share = f"{len(repair.restored)} of {repair.considered} modules"
    least = f"{repair.needed} of them shown to be needed, so a smaller set may do"
    if repair.minimal:
        least = "leaving out any one of them, it did not pass"
    lines = [
        f"{repair.verdict_before} → {repair.verdict_after} on {documents}, with {share} "
        f"kept as in the reference ({least})",
        f"bits per weight: {figures(repair.bits_before)} → {figures(repair.bits_after)}",
        f"{plural(repair.evaluations, 'evaluation')} on "
        f"{plural(repair.search_documents, 'search document')} ({repair.exhaustive})",
    ]
    after = {g.id: g for g in repair.after}
    for gate in repair.before:
        lines.append(f"  {gate.id}: {_verdict(gate)} → {_verdict(after.get(gate.id))}")
    undecided = {"not searched on": repair.left_out, "not verified": repair.not_verified}
    for what, names in undecided.items():
        if names:
            lines.append(f"{what}: {', '.join(names)}")
    if repair.reason:
        lines.append(f"note: {repair.reason}")
    lines += [f"  keep {name}" for name in repair.restored]
    return lines


def sensitivity_lines(s: Sensitivity | None, most: int = 8) -> list[str]:
    """The ranking with its controls, for a terminal."""
    if s is None:
        return []
    lines = [
        f"sensitivity, KL in nats/token on {plural(s.documents, 'document')}, "
        f"{plural(s.tokens, 'token')} "
        f"(the first {min(most, len(s.modules))} of {len(s.modules)} modules)",
        f"{'module':<44} {'score':>8}  {'swap':>8} {'interval':<18} {'restore':>8}  {'noise':>8}",
    ]
    for m in s.modules[:most]:
        low, high = (m.swap.low, m.swap.high) if m.swap else (None, None)
        interval = "" if low is None else f"[{figures(low)}, {figures(high)}]"
        one, back = (None if e is None else e.value for e in (m.swap, m.restore))
        values = [m.score, one, back, m.noise]
        score, swap, restore, noise = ("—" if v is None else str(figures(v)) for v in values)
        lines.append(
            f"{m.module:<44} {score:>8}  {swap:>8} {interval:<18} {restore:>8}  {noise:>8}"
        )
    lines.append(
        f"controls: swapping a module for itself gives {figures(s.zero_swap)}; the single swaps "
        f"add up to {figures(s.additivity)} × the effect of all of them together"
    )
    return [*lines, *(f"note: {n}" for n in s.notes)]


def replay_lines(
    number: int, row: dict[str, Any], gates: Sequence[GateResult], verdict: str
) -> tuple[list[str], bool]:
    """One logged evaluation beside the same one made again, and whether the two are the same."""
    then = {g["id"]: g for g in row["gates"]}
    now = [
        {"id": g.id, "verdict": g.verdict, "observed": g.observed, "bound": g.bound} for g in gates
    ]
    same = verdict == row["verdict"] and now == row["gates"]
    lines = [
        f"evaluation {number}, {plural(len(row['restored']), 'module')} restored, "
        f"{plural(row['documents'], 'document')}: {row['verdict']} then, {verdict} now "
        f"({'the same to the last bit' if same else 'not the same'})"
    ]
    for g in gates:
        old = then.get(g.id)
        was = f"{old['verdict']} ({figures(old['observed'])})" if old else "not decided"
        lines.append(f"  {g.id}: {was} then, {_verdict(g)} now")
    return lines, same


def _verdict(gate: GateResult | None) -> str:
    if gate is None:
        return "not decided"
    return f"{gate.verdict} ({figures(gate.observed)})"
