"""The summary in the terminal: at most 100 columns, plain and colourless where there is none."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from evalharness.errors import plural
from evalharness.report import estimates, gate_rows, layer_tables, numbers, task_rows
from evalharness.report.glossary import (
    ARROWS,
    SYMBOLS,
    scope_words,
    sentence,
    tile_name,
    unit_beside,
    unit_words,
)
from evalharness.report.remarks import remarks
from evalharness.report.safe_text import short, visible
from evalharness.spec.estimate import Verdict
from evalharness.spec.result import CompressionManifest, Result
from evalharness.spec.visible_text import no_command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from evalharness.report.gate_rows import GateRow

COLUMNS = 100
_LEAST = 80
_WIDE = 92  # narrower, the ids of metrics are left out
STYLES: dict[Verdict, str] = {
    "PASS": "green",
    "FAIL": "red",
    "INCONCLUSIVE": "yellow",
    "ANOMALOUS": "magenta",
}
# Where the terminal's encoding is not a Unicode one.
_ASCII = str.maketrans(
    {
        "✓": "+",
        "✕": "x",
        "≤": "<=",
        "≥": ">=",
        "→": "->",
        "↓": "v",
        "↑": "^",
        "—": "-",
        "…": "~",
        "−": "-",
        "÷": "/",
        "·": "-",
        "≠": "!=",
        "␣": "_",
        "⟨": "<",
        "⟩": ">",
        "─": "-",
    }
)
_ROOM = 8  # columns kept for the signs above that become two


def print_summary(result: Result, console: Console) -> None:
    """Print the summary of ``result``: what was decided and why, then the numbers.

    It is laid out for 80 to 100 columns: a narrower terminal wraps it, so that no column is lost.
    """
    width = max(_LEAST, min(console.width, COLUMNS))
    unicode = console.encoding.lower().startswith("utf")
    if console.is_terminal and unicode:
        for part in _parts(result, width):
            console.print(part, width=width, highlight=False, crop=False)
        return
    width -= 0 if unicode else _ROOM
    for part in _parts(result, width):
        text = plain_text(part, width)
        if not unicode:
            text = text.translate(_ASCII).encode("ascii", "replace").decode()
        console.print(Text(text), highlight=False, end="", soft_wrap=True)


def text_summary(result: Result) -> str:
    """Return the summary as plain text of at most 100 columns."""
    return "".join(plain_text(part, COLUMNS) for part in _parts(result, COLUMNS))


def plain_text(part: RenderableType, width: int) -> str:
    """Render without colour, whatever the environment asks for."""
    console = Console(
        file=io.StringIO(),
        width=width,
        color_system=None,
        force_terminal=False,
        no_color=True,
        force_jupyter=False,
        force_interactive=False,
        markup=False,
        emoji=False,
        _environ={},
    )
    with console.capture() as captured:
        console.print(part, width=width, highlight=False)
    # A wrapped line may begin anywhere in a name.
    return "".join(f"{no_command(line.rstrip())}\n" for line in captured.get().splitlines())


def _parts(result: Result, width: int) -> list[RenderableType]:
    """Return the summary's blocks, from the verdict down, with a blank line between them."""
    blocks: list[list[RenderableType]] = [
        [_banner(result)],
        [
            Text.assemble(("! anomaly ", "bold magenta"), visible(f"{a.kind}: {a.message}"))
            for a in result.anomalies
        ],
        [_gates(result, width)],
        [_metrics(result, width), *_reasons(result), *_noise(result), *_speed(result)],
        [_tasks(result)],
        [_layer(result)],
        [
            Text.assemble(("warning ", "yellow"), visible(w))
            for w in gate_rows.other_warnings(result)
        ],
    ]
    parts: list[RenderableType] = []
    for block in filter(None, blocks):
        parts += [*([Text("")] if parts else []), *block]
    return parts


def _banner(result: Result) -> RenderableType:
    style = f"bold {STYLES[result.verdict]}"
    head = Text.assemble(
        (f"{SYMBOLS[result.verdict]} {result.verdict}", style),
        (f"  {short(result.reference, 60)} → {short(result.candidate, 60)}", "bold"),
    )
    lines = [head, Text(visible(result.headline))]
    if result.compared.same_model:
        lines.append(Text("A model against itself: both sides are the same weights."))
    c = result.compared
    sides = (
        f"{numbers.number(c.reference.bits_per_weight, 2)} → "
        f"{numbers.number(c.candidate.bits_per_weight, 2)} bits per weight, "
        f"{numbers.byte_size(c.reference.weight_bytes)} → "
        f"{numbers.byte_size(c.candidate.weight_bytes)} of weights"
    )
    lines.append(Text(sides, style="dim"))
    if c.candidate.activations:  # earlier versions did not record it
        lines.append(Text(_computed(c.candidate), style="dim"))
    if c.candidate.control is not None:
        lines.append(Text(numbers.distances(c.candidate.control), style="dim"))
    lines += [
        Text(f"claim and measurement differ: {visible(d)}", style="yellow")
        for d in c.candidate.disagreements
    ]
    return Group(*lines)


def _computed(side: CompressionManifest) -> str:
    """What runs here, in one line."""
    return (
        f"kernel {side.kernel}; activations {visible(side.activations)}; KV cache "
        f"{visible(side.kv_cache)}; {numbers.byte_size(side.resident_bytes)} here"
    )


def _new_table() -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        header_style="dim",
        padding=(0, 1, 0, 0),
    )


def _gates(result: Result, width: int) -> RenderableType:
    """Return the gates, and below them the reason of each that is not a PASS."""
    if not result.gates:
        return Text("no gate was applied: nothing was decided, so nothing passed", style="bold")
    # Narrow, an interval and a unit take two lines; what is left is the gates', and only their
    # names are broken.
    narrow = width < _WIDE
    cells: list[list[Text]] = []
    reasons = Table.grid(padding=(0, 1, 0, 0))
    shown, folded = gate_rows.fold(gate_rows.gate_rows(result))
    for row in shown:
        g, n = row.gate, row.shown
        style = STYLES[g.verdict]
        verdict = Text(f"{row.symbol} {g.verdict}", style=style)
        if row.standing != "blocking":
            verdict.append("\n  " + row.standing.split(" (")[0], style="dim")
        # Of `each: true` the scope, which stands below, is in the id as well.
        name = Text(short(g.id.rpartition("[")[0] if gate_rows.names_scope(g) else g.id, 34))
        if g.scope:
            name.append(f"\n{short(scope_words(g.scope), 60)}", style="dim")
        unit = short(unit_beside(g.unit), 14)
        between = "\n" if len(unit) > 6 or narrow else " "
        observed = Text.assemble(n.observed.value, (f"{between}{unit}".rstrip(), "dim"))
        interval = n.observed.interval or "none"
        if narrow:
            interval = interval.replace(", ", ",\n")
        cells.append([verdict, name, observed, Text(interval), Text(n.limit)])
        if g.verdict != "PASS":
            reasons.add_row(Text(row.symbol, style=style), _reason(row))
    headings = ("verdict", "gate", "observed", "interval", "limit")
    widths = [
        max(len(heading), *(cell_len(line.plain) for row in cells for line in row[k].split("\n")))
        for k, heading in enumerate(headings)
    ]
    spaces = 2 * (len(headings) - 1)
    widths[1] = max(12, min(widths[1], width - spaces - sum(widths) + widths[1]))
    table = _new_table()
    for heading, cells_width in zip(headings, widths, strict=True):
        left = heading in ("verdict", "gate")
        table.add_column(
            heading, justify="left" if left else "right", overflow="fold", width=cells_width
        )
    for row_cells in cells:
        table.add_row(*row_cells)
    parts: list[RenderableType] = [Text(gate_rows.tally(result), style="bold"), table]
    if folded:
        parts.append(Text(f"and {plural(len(folded), 'more gate')}, all PASS", style="dim"))
    parts += [Text(text, style="dim") for text in remarks(result)]
    if reasons.row_count:
        parts += [Text(""), reasons]
    return Group(*parts)


def _reason(row: GateRow) -> Text:
    g = row.gate
    text = Text.assemble(
        (f"{short(g.id, 34)}: ", STYLES[g.verdict]), visible(sentence(g.reason)), overflow="fold"
    )
    if g.file:
        text.append(f" {visible(g.file)}" + (f":{g.line}" if g.line else ""), style="dim")
    return text


def _metrics(result: Result, width: int) -> RenderableType:
    found = estimates.key_estimates(result)
    if not found:
        return Text("metrics: none of the key metrics was measured")
    table = _new_table()
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("interval", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    with_ids = width >= _WIDE
    if with_ids:
        table.add_column("id", no_wrap=True, style="dim")
    for e in found:
        s = numbers.estimate(e)
        interval = numbers.interval_words(e) or "none"
        name = f"{tile_name(e.id)} {ARROWS[e.direction]}".rstrip()
        cells = [name, s.value, interval, short(unit_words(e.unit), 12)]
        table.add_row(*(Text(cell) for cell in [*cells, e.id][: 5 if with_ids else 4]))
    return table


def _reasons(result: Result) -> list[RenderableType]:
    """Return why a metric has no interval, or no value, a line for each reason."""
    named: dict[str, list[str]] = {}
    for e in estimates.key_estimates(result):
        if e.low is None:
            named.setdefault(e.reason or "not recorded why", []).append(tile_name(e.id))
    return [
        Text(f"no interval for {'; '.join(names)}: {visible(reason)}", style="dim")
        for reason, names in named.items()
    ]


def _noise(result: Result) -> list[RenderableType]:
    """Return the noise floor of the metrics shown, on a line of its own: no column is left."""
    shown = [
        f"{tile_name(e.id)} {numbers.noise_floor(e)}"
        for e in estimates.key_estimates(result)
        if e.noise_floor is not None
    ]
    text = f"noise floor (the reference against itself): {'; '.join(shown)}"
    return [Text(text, style="dim")] if shown else []


def _speed(result: Result) -> list[RenderableType]:
    """Return how fast each side was, where that was timed."""
    shown = [
        f"{what} {numbers.figures(both.reference)} → {numbers.figures(both.candidate)}"
        for what, both in result.cost.speed_by_side.items()
        if what.startswith("ms")  # the page has tokens a second as well
    ]
    return [Text(f"speed: {'; '.join(shown)}", style="dim")] if shown else []


def _tasks(result: Result) -> RenderableType:
    if not result.tasks:
        return Text("tasks: not measured")
    table = _new_table()
    table.add_column("task", overflow="fold", min_width=14)
    for name in ("items", "reference", "candidate", "shift", "✓→✕", "✕→✓"):
        table.add_column(name, justify="right", no_wrap=True)
    rows, left_out = task_rows.brief_rows(result)
    for row in rows:
        t = row.task
        flips = (
            numbers.MISSING if x is None else f"{x:,}" for x in (t.right_to_wrong, t.wrong_to_right)
        )
        table.add_row(
            Text(
                f"{short(t.task, 40)} ({short(t.metric, 16)})"
                + (f"\n{row.note}" if row.note else "")
            ),
            row.items,
            row.reference,
            row.candidate,
            Text(str(numbers.estimate(row.shift)) if row.shift else numbers.MISSING),
            *flips,
        )
    if left_out:
        table.add_row(Text(left_out, style="dim"))
    return table


def _layer(result: Result) -> RenderableType:
    worst = layer_tables.worst(result.layers)
    if worst is None:
        return Text("layers: not measured")
    s = numbers.shown(worst.median, worst.low, worst.high)
    sqnr = "" if worst.sqnr_db is None else f", SQNR {worst.sqnr_db:.1f} dB"
    alike = ""
    if worst.alike_count:
        alike = f"; cannot be told apart from {short(worst.alike[0], 60)}"
        alike += f" and {worst.alike_count - 1} more" if worst.alike_count > 1 else ""
    return Text.assemble(
        "worst layer: ",
        (short(worst.layer, 60), "bold"),
        f", {visible(worst.error).replace('_', ' ')} error {s} relative L2{sqnr}{alike}",
    )
