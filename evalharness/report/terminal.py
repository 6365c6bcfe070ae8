"""The summary in the terminal: at most 100 columns, plain and colourless where there is none."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from evalharness.report import depth, numbers, view
from evalharness.report.text import plural, scope_words, sentence, short, visible
from evalharness.report.words import ARROWS, is_waived, tile_name, unit_words
from evalharness.spec.result import Result, Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

    from evalharness.report.view import GateRow

COLUMNS = 100
STYLES: dict[Verdict, str] = {
    "PASS": "green",
    "FAIL": "red",
    "INCONCLUSIVE": "yellow",
    "ANOMALOUS": "magenta",
}
# Where the terminal's encoding is not a Unicode one.
_ASCII = str.maketrans(
    {"✓": "+", "✕": "x", "≤": "<=", "≥": ">=", "→": "->", "↓": "v", "↑": "^", "—": "-", "…": "~",
     "−": "-", "÷": "/", "·": "-", "≠": "!=", "␣": "_", "⟨": "<", "⟩": ">", "‖": "||"}
)  # fmt: skip


def print_summary(result: Result, console: Console) -> None:
    """Print the summary of ``result``: what was decided and why, then the numbers."""
    width = min(console.width, COLUMNS)
    unicode = console.encoding.lower().startswith("utf")
    for part in _parts(result, width):
        if unicode:
            console.print(part, width=width, highlight=False, soft_wrap=False)
        else:
            plain = _plain(part, width).translate(_ASCII)
            console.print(
                Text(plain.encode(console.encoding, "replace").decode(console.encoding)),
                width=width, highlight=False, end="",
            )  # fmt: skip


def text_summary(result: Result) -> str:
    """Return the summary as plain text of at most 100 columns."""
    return "".join(_plain(part, COLUMNS) for part in _parts(result, COLUMNS))


def _plain(part: RenderableType, width: int) -> str:
    """Render without colour, whatever the environment asks for."""
    console = Console(
        file=io.StringIO(), width=width, color_system=None, force_terminal=False, no_color=True,
        force_jupyter=False, force_interactive=False, _environ={},
    )  # fmt: skip
    with console.capture() as captured:
        console.print(part, width=width, highlight=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _parts(result: Result, width: int) -> list[RenderableType]:
    """Return the summary's blocks, from the verdict down."""
    parts: list[RenderableType] = [_banner(result)]
    parts += [
        Text.assemble(("! anomaly ", "bold magenta"), visible(f"{a.kind}: {a.message}"))
        for a in result.anomalies
    ]
    parts += [_gates(result, width), _metrics(result), _tasks(result, width), _layer(result)]
    parts += [
        Text.assemble(("warning ", "yellow"), visible(w)) for w in result.warnings
    ]
    return [Padding(part, (0, 0, 1, 0)) for part in parts[:-1]] + parts[-1:]


def _banner(result: Result) -> RenderableType:
    style = f"bold {STYLES[result.verdict]}"
    head = Text.assemble(
        (f"{view.SYMBOLS[result.verdict]} {result.verdict}", style),
        (f"  {short(result.reference, 60)} → {short(result.candidate, 60)}", "bold"),
    )
    lines = [head, Text(visible(result.headline))]
    if result.compared.same_model:
        lines.append(Text("A model against itself: both sides are the same weights."))
    c = result.compared
    sides = (
        f"{c.reference.bits_per_weight:.2f} → {c.candidate.bits_per_weight:.2f} bits per weight, "
        f"{numbers.byte_size(c.reference.weight_bytes)} → "
        f"{numbers.byte_size(c.candidate.weight_bytes)} of weights"
    )
    lines.append(Text(sides, style="dim"))
    lines += [
        Text(f"claim and measurement differ: {visible(d)}", style="yellow")
        for d in c.candidate.disagreements
    ]
    return Group(*lines)


def _new_table(**more: int | bool) -> Table:
    return Table(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", **more  # type: ignore[arg-type]
    )


def _gates(result: Result, width: int) -> RenderableType:
    """Return the gates, the reason of each that is not a PASS on a line of its own below."""
    if not result.gates:
        return Text("no gate was applied: nothing was decided, so nothing passed", style="bold")
    table = _new_table()
    table.add_column("verdict", no_wrap=True)
    table.add_column("gate", overflow="fold", ratio=1)
    table.add_column("observed", justify="right", no_wrap=True)
    table.add_column("interval", justify="right", no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    reasons: list[Text] = []
    for row in view.gate_rows(result):
        g, n = row.gate, row.shown
        style = STYLES[g.verdict]
        name = Text(short(g.id, 34))
        if g.scope:
            name.append(f"\n{short(scope_words(g.scope), 60)}", style="dim")
        unit = "" if g.unit == "fraction" else unit_words(g.unit)
        table.add_row(
            Text(f"{row.symbol} {g.verdict}", style=style),
            name,
            Text(f"{n.observed.value} {short(unit, 12)}".rstrip()),
            Text(n.observed.interval or "none"),
            Text(n.limit),
            Text("" if row.standing == "blocking" else row.standing.split(" (")[0], style="dim"),
        )
        if g.verdict != "PASS":
            reasons.append(_reason(row))
    return Group(Text(view.tally(result), style="bold"), table, *reasons)


def _reason(row: GateRow) -> Text:
    g = row.gate
    text = Text.assemble(
        (f"{row.symbol} {short(g.id, 34)}: ", STYLES[g.verdict]), visible(sentence(g.reason))
    )
    if g.worst:
        text.append(f" Worst: {visible(sentence(g.worst))}")
    if g.further_documents is not None:
        text.append(f" {plural(g.further_documents, 'further document')} would settle it.")
    if is_waived(g) and g.waiver:
        text.append(f" Waived: {visible(sentence(g.waiver))}")
    if g.file:
        text.append(f" {visible(g.file)}:{g.line or ''}".rstrip(":"), style="dim")
    return text


def _metrics(result: Result) -> RenderableType:
    estimates = view.key_estimates(result)
    if not estimates:
        return Text("metrics: none of the key metrics was measured")
    table = _new_table()
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("interval", no_wrap=False, overflow="fold")
    table.add_column("unit", no_wrap=True)
    table.add_column("id", no_wrap=True, style="dim")
    for e in estimates:
        s = numbers.estimate(e)
        if e.value is None or e.low is None:
            interval = short(e.reason or "no interval", 90)
        else:
            interval = "exact" if e.low == e.high else s.interval
        name = f"{tile_name(e.id)} {ARROWS[e.direction]}".rstrip()
        unit = short(unit_words(e.unit), 12)
        table.add_row(name, s.value, Text(interval), Text(unit), Text(e.id))
    return table


def _tasks(result: Result, width: int) -> RenderableType:
    if not result.tasks:
        return Text("tasks: not measured")
    table = _new_table()
    table.add_column("task", overflow="fold", ratio=1)
    for name in ("items", "reference", "candidate", "shift", "✓→✕", "✕→✓"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in view.task_rows(result):
        t = row.task
        table.add_row(
            Text(f"{short(t.task, 40)} ({short(t.metric, 16)})"),
            f"{t.items:,}",
            row.reference,
            row.candidate,
            Text(str(numbers.estimate(row.shift)) if row.shift else numbers.MISSING),
            *(numbers.MISSING if x is None else f"{x:,}" for x in (t.right_to_wrong, t.wrong_to_right)),
        )
    return table


def _layer(result: Result) -> RenderableType:
    worst = depth.worst(result.layers)
    if worst is None:
        return Text("layers: not measured")
    s = numbers.shown(worst.median, worst.low, worst.high)
    sqnr = "" if worst.sqnr_db is None else f", SQNR {worst.sqnr_db:.1f} dB"
    return Text.assemble(
        "worst layer: ",
        (short(worst.layer, 60), "bold"),
        f", {visible(worst.error).replace('_', ' ')} error {s} relative L2{sqnr}",
    )
