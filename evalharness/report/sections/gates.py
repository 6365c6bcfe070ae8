"""The gates table: what was decided, on what evidence."""

from __future__ import annotations

from evalharness.report import gate_rows
from evalharness.report.remarks import remarks
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result, Waiver


def render(r: Result) -> str:
    """The gates table: what was decided, on what evidence."""
    rows, folded = gate_rows.fold(gate_rows.gate_rows(r))
    if not rows:
        return ""
    return template(
        "sections/gates.html.j2",
        rows=rows,
        folded=folded,
        remarks=remarks(r),
        waivers=waivers(r),
        fewest=fewest(r),
    )


def fewest(result: Result) -> str:
    """Say how many documents or items a verdict had to rest on, and of which metrics."""
    found: dict[int, list[str]] = {}
    for gate in result.gates:
        names = found.setdefault(gate.min_n, []) if gate.min_n is not None else []
        if gate.metric not in names:
            names.append(gate.metric)
    return "; ".join(f"{least} ({', '.join(found[least])})" for least in sorted(found))


def waivers(result: Result) -> list[Waiver]:
    """Return the waivers, the expired ones first."""
    order = ("expired", "expiring", "active", "unused")
    return sorted(result.waivers, key=lambda w: (order.index(w.state), w.gate))


SECTION = Section(
    "gates",
    "Gates",
    render,
    place=10,
    missing="No gate was applied: nothing was decided, so nothing passed.",
)
