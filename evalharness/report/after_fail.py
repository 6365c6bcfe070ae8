"""After a verdict that blocks: which gate, what the likely cause is, and what to type next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evalharness.metrics import REGISTRY
from evalharness.report import gate_rows, layer_tables, numbers
from evalharness.report.safe_text import visible
from evalharness.run.command import Command
from evalharness.spec.result import GateResult, Result

_UNSEARCHED = ("manifest", "timings", "items")  # records that `bisect` decides no gate on


@dataclass(frozen=True)
class NextStep:
    """What to read and to type after a FAIL."""

    gate: str  # which gate fails, in words
    cause: str  # where the difference is likely to come from; empty where nothing points there
    commands: tuple[str, ...]  # as typed in a shell


def next_step(result: Result, run: Path | None) -> NextStep | None:
    """Return what follows from a FAIL; None where none is needed.

    Parameters
    ----------
    result : what was decided.
    run : where it lies, for the commands; None: nowhere that lasts, and ``RUN`` stands for it.

    """
    failing = [g for g in sorted(result.gates, key=gate_rows.rank) if gate_rows.objects(g)]
    failing = [g for g in failing if g.verdict == "FAIL"]
    if result.verdict != "FAIL" or not failing:
        return None
    first = failing[0]
    place = Path("RUN") if run is None else run
    commands = [Command("explain", (first.rule or first.id, place))]
    if any(_searched(g) for g in failing):
        commands.append(Command("bisect", (place,)))
    else:
        commands.append(Command("show", (place,)))
    others = f" and {len(failing) - 1} more" if len(failing) > 1 else ""
    return NextStep(
        f"{visible(first.id)}{others}", _cause(result, first), tuple(str(c) for c in commands)
    )


def _searched(gate: GateResult) -> bool:
    """Whether `bisect` may find modules that this gate passes with."""
    known = gate.metric in REGISTRY and gate.observed is not None
    return known and REGISTRY[gate.metric].records not in _UNSEARCHED and "task" not in gate.scope


def _cause(result: Result, gate: GateResult) -> str:
    """Name the module, then the text, that stand out most."""
    said = []
    worst = layer_tables.worst(result.layers)
    if worst is not None and worst.median is not None:
        alike = f", and {worst.alike_count} like it" if worst.alike_count else ""
        said.append(
            f"{visible(worst.layer)} adds the largest error ({numbers.figures(worst.median)} "
            f"relative L2{alike})"
        )
    if gate.worst and not gate.worst.startswith("layer "):
        said.append(f"the worst is {visible(gate.worst)}")
    return "; ".join(said)
