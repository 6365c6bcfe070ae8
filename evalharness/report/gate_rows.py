"""Gates as rows of a table, and what all of them come to.

A gate *objects* where it blocks: anything but a PASS, neither waived nor of a lesser severity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evalharness.errors import plural
from evalharness.gates.policy_files import default_id
from evalharness.report import numbers
from evalharness.report.glossary import (
    SYMBOLS,
    VERDICTS,
    metric_name,
    scope_key,
    scope_words,
)
from evalharness.report.interval_bars import gate_bar
from evalharness.report.safe_text import visible
from evalharness.spec.result import GateResult, Result


def is_waived(gate: GateResult) -> bool:
    """Return whether a gate would object and a waiver, with its reason, stands against that."""
    return gate.waiver is not None and gate.verdict != "PASS"


def objects(gate: GateResult) -> bool:
    """Return whether a gate blocks: anything but a PASS, not waived, and blocking."""
    return gate.verdict != "PASS" and gate.blocking and not is_waived(gate)


def rank(gate: GateResult) -> tuple[int, int]:
    """Sort key of a gate: what blocks first, then the worse verdict."""
    return (0 if objects(gate) else 1, VERDICTS.index(gate.verdict))


@dataclass(frozen=True)
class GateRow:
    """One gate as the table shows it."""

    gate: GateResult
    name: str
    where: str
    shown: numbers.GateNumbers
    symbol: str
    standing: str  # whether it blocks, in words
    css: str
    waived: bool

    @property
    def bar(self) -> Markup:
        """Return the interval drawn against the limit."""
        g, s = self.gate, self.shown
        label = f"observed {s.observed}, limit {s.limit}: {g.verdict}"
        return gate_bar(g.observed, g.low, g.high, g.threshold, g.side, g.verdict, label)


def gate_rows(result: Result) -> list[GateRow]:
    """Return the gates: what blocks first, the worse verdict before the better."""
    return [gate_row(g) for g in sorted(result.gates, key=rank)]


def fold(rows: Sequence[GateRow], most: int = 12) -> tuple[list[GateRow], list[GateRow]]:
    """Split the gates into those to show and the PASSes beyond ``most``, which may be folded.

    A gate over every layer is many gates; what is not a PASS is always shown.
    """
    first = [row for k, row in enumerate(rows) if k < most or row.gate.verdict != "PASS"]
    rest = [row for k, row in enumerate(rows) if k >= most and row.gate.verdict == "PASS"]
    return (first, rest) if len(rest) > 3 else (list(rows), [])


def gate_row(g: GateResult) -> GateRow:
    """Return one gate as text."""
    waived = is_waived(g)
    standing = "waived" if waived else "blocking" if g.blocking else f"not blocking ({g.severity})"
    return GateRow(
        g,
        metric_name(g.metric),
        scope_words(g.scope),
        numbers.gate(g),
        SYMBOLS[g.verdict],
        standing,
        f"v-{g.verdict.lower()}" + ("" if objects(g) or g.verdict == "PASS" else " aside"),
        waived,
    )


def gate_label(g: GateResult) -> str:
    """Return a gate's id with its scope: ``arc-drop [metric=acc, task=arc_easy]``."""
    said = not g.scope or names_scope(g)
    return visible(g.id) if said else f"{visible(g.id)} [{scope_key(g.scope)}]"


def names_scope(g: GateResult) -> bool:
    """Return whether the id ends with the whole scope, as those of `each: true` do."""
    return bool(g.scope) and g.id.endswith(default_id("", g.scope))


def tally(result: Result) -> str:
    """Count the gates by verdict, in words: ``6 gates: 4 PASS, 1 FAIL``."""
    if not result.gates:
        return "no gate was applied"
    counts = Counter(g.verdict for g in result.gates)
    parts = [f"{counts[v]} {v}" for v in reversed(VERDICTS) if counts[v]]
    waived = sum(is_waived(g) for g in result.gates)
    aside = sum(g.verdict != "PASS" and not g.blocking for g in result.gates) - waived
    beside = [f"{n} {what}" for n, what in ((waived, "waived"), (aside, "not blocking")) if n > 0]
    return f"{plural(len(result.gates), 'gate')}: {', '.join(parts)}" + (
        f" ({', '.join(beside)})" if beside else ""
    )


def other_warnings(result: Result) -> list[str]:
    """Return the warnings that repeat no gate: those stand in the table of gates already."""
    told = tuple(f"{g.id}: {g.verdict}," for g in result.gates)
    return [w for w in result.warnings if not w.startswith(told)]
