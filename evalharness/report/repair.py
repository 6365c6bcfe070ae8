"""The repair and the sensitivity ranking in words, and as a section of report.html."""

from __future__ import annotations

from evalharness.report.numbers import figures
from evalharness.spec.result import GateResult, Repair, Result


def repair_lines(repair: Repair) -> list[str]:
    """What a bisect found, for a terminal."""
    documents = f"{repair.held_out_documents} held-out documents"
    if repair.restored is None:
        return [
            f"no repair: {repair.reason}",
            f"{repair.evaluations} evaluations over {repair.considered} modules",
        ]
    share = f"{len(repair.restored)} of {repair.considered} modules"
    least = "no single one can be left out" if repair.minimal else "not shown to be minimal"
    lines = [
        f"{repair.verdict_before} → {repair.verdict_after} on {documents}, keeping {share} "
        f"({least})",
        f"bits per weight: {figures(repair.bits_before)} → {figures(repair.bits_after)}",
        f"{repair.evaluations} evaluations on {repair.search_documents} search documents "
        f"({repair.exhaustive})",
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


def _verdict(gate: GateResult | None) -> str:
    if gate is None:
        return "not decided"
    return f"{gate.verdict} ({figures(gate.observed)})"


def repair_html(result: Result) -> str:
    """The section: the ranking with its controls, then the repair with both verdicts."""
    if result.sensitivity is None and result.repair is None:
        return ""
    from evalharness.report.sections import template

    return template("sections/repair.html.j2", s=result.sensitivity, repair=result.repair)
