"""``summary.md``: the verdict for a GitHub step summary or a pull-request comment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from evalharness.errors import plural
from evalharness.report import estimates, gate_rows, layer_tables, numbers, task_rows
from evalharness.report.after_fail import next_step
from evalharness.report.glossary import (
    ARROWS,
    EXIT_CODES,
    SYMBOLS,
    metric_name,
    sentence,
    unit_beside,
    unit_words,
)
from evalharness.report.remarks import remarks
from evalharness.report.safe_text import visible
from evalharness.spec.result import CompressionManifest, Result

# What starts something in GitHub's Markdown, or in the HTML that it lets through.
_ESCAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"&"), "&amp;"),
    (re.compile(r"<"), "&lt;"),
    (re.compile(r">"), "&gt;"),
    (re.compile(r"([\\`*_\[\]~$])"), r"\\\1"),
    (re.compile(r"\|"), "&#124;"),  # would end a cell, even in code
    (re.compile(r":(?=//|[\w+-]+:)"), "&#58;"),  # a link, an emoji
    (re.compile(r"(?i)\b(www)\."), r"\1&#46;"),
    (re.compile(r"(?<!\w)@(?=\w)"), "@<!-- -->"),  # a mention
    (re.compile(r"(?<!&)#(?=\d)"), "#<!-- -->"),  # an issue
    (re.compile(r"\A\s*([#+=-])"), r"\\\1"),  # a heading, a list
    (re.compile(r"\A\s*(\d+)([.)])"), r"\1\\\2"),
)


def render_markdown(result: Result, run: Path | None = None) -> str:
    """Return the summary: verdict, gates, key metrics, what was compared, tasks, worst layer.

    ``run`` is where it lies, for the commands that it names.
    """
    blocks = [
        f"## {SYMBOLS[result.verdict]} {result.verdict}: {escape(result.candidate)} "
        f"against {escape(result.reference)}",
        escape(sentence(result.headline)),
        *_next(result, run),
        *_anomalies(result),
        _gates(result),
        _metrics(result),
        _compared(result),
        _tasks(result),
        _worst_layer(result),
        *(f"> **Warning:** {escape(w)}" for w in gate_rows.other_warnings(result)),
        f"<sub>exit code {result.exit_code} ({EXIT_CODES.get(result.exit_code, 'see the log')}), "
        f"suite {escape(result.suite)}, policy {escape(result.policy)}, evalharness "
        f"{escape(result.evalharness_version)}, {escape(result.created)}</sub>",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape(text: str) -> str:
    """Return ``text`` on one line, so that Markdown reads every character of it as itself."""
    text = visible(text)
    for pattern, replacement in _ESCAPES:
        text = pattern.sub(replacement, text)
    return text


def code(text: str) -> str:
    """Return ``text`` as inline code: safe in a table, whatever it holds."""
    return f"<code>{escape(text)}</code>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; cells are escaped by their makers. ``>`` ends a right column."""
    names = [name.removesuffix(">") for name in header]
    rules = ["---:" if name.endswith(">") else ":---" for name in header]
    lines = [names, rules, *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _anomalies(result: Result) -> list[str]:
    return [f"> **Anomaly, {escape(a.kind)}:** {escape(a.message)}" for a in result.anomalies]


def _next(result: Result, run: Path | None) -> list[str]:
    step = next_step(result, run)
    if step is None:
        return []
    cause = f" **Likely cause:** {escape(step.cause)}." if step.cause else ""
    typed = "<br>".join(code(command) for command in step.commands)
    return [f"**Fails:** {escape(step.gate)}.{cause} **Next:**<br>{typed}"]


def _gates(result: Result) -> str:
    if not result.gates:
        return "**No gate was applied: nothing was decided, so nothing passed.**"
    rows = []
    shown, folded = gate_rows.fold(gate_rows.gate_rows(result))
    for row in shown:
        g, n = row.gate, row.shown
        where = "" if not g.scope else f"<br>{escape(row.where)}"
        rows.append(
            [
                f"{row.symbol} **{g.verdict}**<br>{row.standing}",
                f"**{escape(g.id)}**<br>{code(g.metric)}{where}",
                f"{n.observed.value} {escape(unit_beside(g.unit))}".rstrip(),
                n.observed.interval or "none",
                n.limit,
                escape(sentence(g.reason)),
            ]
        )
    head = ["Verdict", "Gate", "Observed>", "Interval>", "Limit>", "Why"]
    more = f"\n\nand {plural(len(folded), 'more gate')}, all PASS" if folded else ""
    more += "".join(f"\n\n{escape(text)}" for text in remarks(result))
    return f"**{gate_rows.tally(result)}**\n\n{table(head, rows)}{more}"


def _metrics(result: Result) -> str:
    rows = []
    for e in estimates.key_estimates(result):
        shown = numbers.estimate(e)
        if e.value is None or e.low is None:
            interval = escape(e.reason or "no interval")
        else:
            interval = numbers.interval_words(e)
        name = f"{escape(metric_name(e.id))} {ARROWS[e.direction]}".rstrip()
        unit, floor = escape(unit_words(e.unit)), numbers.noise_floor(e)
        rows.append([name, code(e.id), shown.value, interval, unit, floor])
    if not rows:
        return "No key metric was measured."
    return table(["Metric", "Id", "Value>", "Interval>", "Unit", "Noise floor>"], rows)


def _compared(result: Result) -> str:
    c = result.compared
    lines = [f"**Reference** {_side(c.reference)}", f"**Candidate** {_side(c.candidate)}"]
    if c.same_model:
        lines.append("**A model against itself:** both sides are the same weights.")
    lines += [f"**Claim and measurement differ:** {escape(d)}" for d in c.candidate.disagreements]
    if c.candidate.control is not None:
        lines.append(f"**Engine:** {escape(numbers.distances(c.candidate.control))}")
    return "<br>\n".join(lines)


def _side(s: CompressionManifest) -> str:
    stored = ", ".join(f"{escape(g.storage)} ({g.tensors:,})" for g in s.groups[:4])
    more = f" and {len(s.groups) - 4} more" if len(s.groups) > 4 else ""
    return (
        f"{escape(s.name)}: {numbers.large(s.parameters)} parameters, "
        f"{numbers.number(s.bits_per_weight, 2)} bits per weight, "
        f"{numbers.byte_size(s.weight_bytes)}{_resident(s)}; tensors: "
        f"{stored or 'not measured'}{more}{_computed(s)}"
    )


def _resident(s: CompressionManifest) -> str:
    if s.resident_bytes is None or s.resident_bytes == s.weight_bytes:
        return ""
    return f" ({numbers.byte_size(s.resident_bytes)} in memory here)"


def _computed(s: CompressionManifest) -> str:
    if not s.activations:
        return ""
    return (
        f"; activations: {escape(s.activations)}; keys and values: {escape(s.kv_cache)}; "
        f"kernel: {escape(s.kernel)}"
    )


def _tasks(result: Result) -> str:
    if not result.tasks:
        return "Tasks: not measured."
    rows = []
    shown, left_out = task_rows.brief_rows(result)
    for row in shown:
        t = row.task
        shift = numbers.estimate(row.shift) if row.shift else None
        flips = (
            numbers.MISSING
            if t.right_to_wrong is None or t.wrong_to_right is None
            else f"{t.right_to_wrong:,} / {t.wrong_to_right:,}"
        )
        rows.append(
            [
                escape(t.task) + (f"<br>{escape(row.note)}" if row.note else ""),
                escape(t.metric) + (" ↑" if t.higher_is_better else " ↓"),
                row.items,
                row.reference,
                row.candidate,
                str(shift) if shift else numbers.MISSING,
                flips,
            ]
        )
    head = ["Task", "Score", "Items>", "Reference>", "Candidate>", "Shift>", "✓→✕ / ✕→✓>"]
    return table(head, rows) + (f"\n\n{left_out[:1].upper()}{left_out[1:]}." if left_out else "")


def _worst_layer(result: Result) -> str:
    worst = layer_tables.worst(result.layers)
    if worst is None:
        return "Layers: not measured."
    shown = numbers.shown(worst.median, worst.low, worst.high)
    sqnr = "" if worst.sqnr_db is None else f", SQNR {worst.sqnr_db:.1f} dB"
    return (
        f"**Worst layer:** {code(worst.layer)}, {escape(worst.error.replace('_', ' '))} error "
        f"{shown} relative L2{sqnr}"
    )
