"""The result arranged for reading: rows of tables, pairs of sides, marks of charts.

Nothing is estimated here: every number is one of result.json's, looked up, sorted and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evalharness.metrics import FAMILIES, REGISTRY, Family
from evalharness.metrics.tasks import FLIPS, SCORE_SHIFT
from evalharness.report import numbers
from evalharness.report.bars import Axis, axis, forest_bar, gate_bar
from evalharness.report.glossary import (
    SYMBOLS,
    VERDICTS,
    family,
    is_waived,
    metric_name,
    objects,
    rank,
    scope_sort,
)
from evalharness.report.text import plural, scope_key, scope_words, visible
from evalharness.spec.estimate import Estimate, Scope
from evalharness.spec.result import GateResult, Result, TaskResult, Waiver


def find(result: Result, metric: str, scope: Scope | None = None) -> Estimate | None:
    """Return the estimate of ``metric`` in exactly ``scope`` (default: everything)."""
    wanted = scope or {}
    return next((e for e in result.metrics if e.id == metric and e.scope == wanted), None)


def key_estimates(result: Result) -> list[Estimate]:
    """Return the estimates over everything that a summary shows, in its order."""
    found = (find(result, metric.id) for metric in REGISTRY.shown("summary"))
    return [e for e in found if e is not None]


# ---------------------------------------------------------------- gates


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
    inside = ",".join(f"{key}={value}" for key, value in g.scope.items())
    return bool(g.scope) and g.id.endswith(f"[{inside}]")


def tally(result: Result) -> str:
    """Count the gates by verdict, in words: ``6 gates: 4 PASS, 1 FAIL``."""
    if not result.gates:
        return "no gate was applied"
    counts = Counter(g.verdict for g in result.gates)
    parts = [f"{counts[v]} {v}" for v in reversed(VERDICTS) if counts[v]]
    waived = sum(is_waived(g) for g in result.gates)
    return f"{plural(len(result.gates), 'gate')}: {', '.join(parts)}" + (
        f" ({waived} waived)" if waived else ""
    )


def other_warnings(result: Result) -> list[str]:
    """Return the warnings that repeat no gate: those stand in the table of gates already."""
    told = tuple(f"{g.id}: {g.verdict}," for g in result.gates)
    return [w for w in result.warnings if not w.startswith(told)]


def waivers(result: Result) -> list[Waiver]:
    """Return the waivers, the expired ones first."""
    order = ("expired", "expiring", "active", "unused")
    return sorted(result.waivers, key=lambda w: (order.index(w.state), w.gate))


# ---------------------------------------------------------------- metrics


@dataclass(frozen=True)
class FamilyRows:
    """The estimates of one family: over everything, and within scopes."""

    family: Family
    overall: list[Estimate]
    scoped: list[Estimate]


def families(result: Result, keys: Sequence[str]) -> list[FamilyRows]:
    """Return the families of ``keys`` that have estimates, in the order of the glossary.

    What is scoped to a task stands with the tasks, and is left out here.
    """
    groups = []
    for group in FAMILIES:
        rows = [e for e in result.metrics if family(e.id) is group and "task" not in e.scope]
        if group.key in keys and rows:
            overall = [e for e in rows if not e.scope]
            scoped = sorted((e for e in rows if e.scope), key=lambda e: (e.id, scope_sort(e.scope)))
            groups.append(FamilyRows(group, overall, scoped))
    return groups


@dataclass(frozen=True)
class ScopeTable:
    """One row a corpus or slice, one column a metric, on scales shared by the rows."""

    metrics: list[str]
    rows: list[tuple[str, list[tuple[Estimate | None, Markup]]]]


def scope_table(result: Result) -> ScopeTable | None:
    """Arrange the key metrics by corpus and slice, with intervals on shared scales."""
    columns = [metric.id for metric in REGISTRY.shown("scopes")]
    found = {
        (e.id, tuple(sorted(e.scope.items()))): e
        for e in result.metrics
        if e.id in columns and set(e.scope) <= {"corpus", "slice"}
    }
    keys = sorted({scope for _, scope in found}, key=lambda scope: scope_sort(dict(scope)))
    ids = [m for m in columns if any(metric == m for metric, _ in found)]
    if not any(keys):
        return None
    scales = {m: _shared(m, [e for (i, _), e in found.items() if i == m]) for m in ids}
    rows = []
    for scope in keys:
        cells: list[tuple[Estimate | None, Markup]] = []
        for metric in ids:
            e = found.get((metric, scope))
            bar = (
                Markup("")
                if e is None
                else forest_bar(scales[metric], e.value, e.low, e.high, str(numbers.estimate(e)))
            )
            cells.append((e, bar))
        rows.append((scope_words(dict(scope)), cells))
    return ScopeTable(ids, rows)


def _shared(metric: str, estimates: Sequence[Estimate]) -> Axis:
    values = [x for e in estimates for x in (e.value, e.low, e.high)]
    return axis([*values, 0.0] if numbers.is_shift(metric) else values)


# ---------------------------------------------------------------- tasks


@dataclass(frozen=True)
class TaskRow:
    """One task: scores of both sides, the paired shift, the flips; how far predictions moved."""

    task: TaskResult
    reference: str
    candidate: str
    shift: Estimate | None
    flips: Estimate | None
    moved: list[Estimate]  # at its tokens, in the first row of each task
    bar: Markup


def task_rows(result: Result) -> list[TaskRow]:
    """Return the tasks in the order they were run, shifts on one scale."""
    shifts = {
        (t.task, t.metric): find(result, SCORE_SHIFT, {"task": t.task, "metric": t.metric})
        for t in result.tasks
    }
    ends = [x for e in shifts.values() if e for x in (e.value, e.low, e.high)]
    scale = axis([*ends, 0.0])
    rows: list[TaskRow] = []
    for t in result.tasks:
        e = shifts[t.task, t.metric]
        bar = (
            Markup("")
            if e is None
            else forest_bar(scale, e.value, e.low, e.high, str(numbers.estimate(e)))
        )
        scope = {"task": t.task, "metric": t.metric}
        flips = find(result, FLIPS, scope)
        first = all(row.task.task != t.task for row in rows)
        at_tokens = REGISTRY.shown("tasks") if first else []
        found = [find(result, m.id, {"task": t.task}) for m in at_tokens]
        moved = [m for m in found if m is not None]
        rows.append(TaskRow(t, _score(t.reference), _score(t.candidate), e, flips, moved, bar))
    return rows


def _score(x: float | None) -> str:
    """Format a score with four decimals, as lm-eval does."""
    return numbers.number(x, 4 if x is None or abs(x) < 10 else 2)
