"""One reference and many candidates on one page: a sweep, or the choices before a release.

Each candidate keeps the verdict of its own run; nothing is ranked or averaged. Beside it stands the
verdict corrected for the number of candidates, as `workflow.family` makes it. Runs that do not
share a reference, a suite or a policy are shown side by side with that said first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from evalharness.metrics import REGISTRY
from evalharness.metrics.tasks import SCORE_SHIFT
from evalharness.report import estimates, gate_rows, layer_tables, numbers
from evalharness.report.charts import trade_off
from evalharness.report.glossary import SYMBOLS, tile_name, unit_words
from evalharness.report.safe_text import short, visible
from evalharness.report.templates import template
from evalharness.report.terminal import COLUMNS, plain_text
from evalharness.spec.combined import Claim, Combined
from evalharness.spec.estimate import Estimate, Verdict
from evalharness.spec.result import GateResult, Result

if TYPE_CHECKING:
    from rich.console import RenderableType

DRAWN = 2  # of the metrics shown, the first, beside the bits


@dataclass(frozen=True)
class Row:
    """One candidate: its place in the list, its key estimates, what it fell over."""

    number: int
    result: Result
    estimates: list[Estimate | None]
    task: Estimate | None  # the task whose score fell most
    layer: str
    objections: list[GateResult]
    claim: Claim | None  # None: the verdicts were not corrected for the number of candidates


def rows(results: Sequence[Result], combined: Combined | None = None) -> list[Row]:
    """Return one row a result, in the order given."""
    # In their order, without those that could not be measured: names may repeat.
    claims = [] if combined is None else [c for c in combined.claims if c.verdict is not None]
    found = []
    for number, r in enumerate(results, 1):
        worst = layer_tables.worst(r.layers)
        found.append(
            Row(
                number,
                r,
                [_measured(r, metric) for metric in shown()],
                worst_task(r),
                "" if worst is None else worst.layer,
                [row.gate for row in gate_rows.gate_rows(r) if row.gate.verdict != "PASS"],
                claims[number - 1] if claims else None,
            )
        )
    return found


def _measured(result: Result, metric: str) -> Estimate | None:
    """Return an estimate that has a value, or None."""
    e = estimates.find(result, metric)
    return None if e is None or e.value is None else e


def worst_task(result: Result) -> Estimate | None:
    """Return the task score shift that is worst for the candidate, by the metric's direction."""
    shifts = [e for e in result.metrics if e.id == SCORE_SHIFT and e.value is not None]
    signed = [((e.value or 0.0) * (-1 if e.direction == "lower" else 1), e) for e in shifts]
    return min(signed, key=lambda pair: pair[0])[1] if signed else None


def worst_of(rule: str, result: Result) -> GateResult | None:
    """Return what came of a rule, the worst of several verdicts; None: the policy has it not."""
    own = [g for g in result.gates if (g.rule or g.id) == rule]
    return min(own, key=gate_rows.rank, default=None)


def differences(results: Sequence[Result]) -> list[str]:
    """Say what the runs do not share and comparing them would need."""
    told = []
    asked: list[tuple[str, Callable[[Result], str]]] = [
        ("the reference's weights", lambda r: r.compared.reference.fingerprint),
        ("the tokenizer", lambda r: r.compared.reference.tokenizer_fingerprint),
        ("the suite", lambda r: r.suite),
        ("the policy", lambda r: r.policy),
        ("the version of evalharness", lambda r: r.evalharness_version),
    ]
    for what, of in asked:
        different = {of(r) for r in results}
        if len(different) > 1:
            told.append(f"{what}: {len(different)} different ones among {len(results)} runs")
    return told


def shown() -> list[str]:
    """Return the metrics that are shown of each candidate."""
    return [metric.id for metric in REGISTRY.shown("candidates")]


def render_combined(results: list[Result], combined: Combined | None = None) -> str:
    """Return one HTML page for many candidates of one reference."""
    if not results:
        raise ValueError("results: must hold at least one result (got none)")
    found, metrics = rows(results, combined), shown()
    rules = list(dict.fromkeys(g.rule or g.id for r in results for g in r.gates))
    matrix = [(rule, [worst_of(rule, r) for r in results]) for rule in rules]
    measured = [
        k for k, metric in enumerate(metrics) if any(row.estimates[k] is not None for row in found)
    ]
    drawn = [_chart(found, metric) for metric in metrics[:DRAWN]]
    return template(
        "combined.html.j2",
        rows=found,
        combined=combined,
        columns=[(k, metrics[k]) for k in measured],
        unmeasured=[m for k, m in enumerate(metrics) if k not in measured],
        matrix=matrix,
        charts=[Markup(svg) for svg in drawn if svg],  # noqa: S704
        differences=differences(results),
        references=list(dict.fromkeys(r.reference for r in results)),
        first=results[0],
    )


def combined_text(results: list[Result], combined: Combined | None = None) -> str:
    """Return the table of candidates as plain text of at most 100 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("verdict", no_wrap=True)
    if combined is not None:
        table.add_column("corrected", no_wrap=True)
    table.add_column("candidate", overflow="fold", min_width=12)
    table.add_column("bits", justify="right", no_wrap=True)
    for metric in shown()[:DRAWN]:
        table.add_column(tile_name(metric), justify="right", no_wrap=True)
    table.add_column("not passed", overflow="fold", min_width=10)
    for row in rows(results, combined):
        r = row.result
        corrected = (
            [] if combined is None else [_verdict(row.claim.corrected if row.claim else None)]
        )
        table.add_row(
            _verdict(r.verdict),
            *corrected,
            Text(short(r.candidate, 40)),
            numbers.number(r.compared.candidate.bits_per_weight, 2),
            *(Text(_stacked(e)) for e in row.estimates[:DRAWN]),
            Text(", ".join(short(g.id, 24) for g in row.objections) or "none"),
        )
    parts: list[RenderableType] = [
        Text(f"differs, compare with care: {what}") for what in differences(results)
    ]
    parts.append(table)
    if combined is not None:
        said = [combined.statement, *withdrawn(combined)]
        parts += ["", *(Text(visible(text)) for text in said)]
    return "".join(plain_text(part, COLUMNS) for part in parts)


def withdrawn(combined: Combined) -> list[str]:
    """Say of each PASS that does not hold among so many candidates what stands in its way."""
    return [
        f"{c.candidate}: not at {numbers.percent(c.confidence or 0.0)}. {c.reason}"
        for c in combined.claims
        if c.verdict == "PASS" and c.corrected != "PASS"
    ]


def _verdict(verdict: Verdict | None) -> Text:
    return Text("" if verdict is None else f"{SYMBOLS[verdict]} {verdict}")


def _stacked(e: Estimate | None) -> str:
    if e is None:
        return "not measured"
    s = numbers.estimate(e)
    return f"{s.value}\n{s.interval or 'no interval'}"


def _chart(found: Sequence[Row], metric: str) -> str:
    points = {}
    for row in found:
        e = estimates.find(row.result, metric)
        bits = row.result.compared.candidate.bits_per_weight
        if e is not None and e.value is not None and bits is not None:
            points[row.number] = trade_off.Candidate(
                row.result.candidate, bits, e.value, e.low, e.high, row.result.verdict
            )
    unit = unit_words(REGISTRY[metric].unit).removesuffix("/token")
    title = tile_name(metric) + (f" ({unit})" if unit != "ratio" else "")
    return trade_off.scatter(points, f"trade-{metric.replace('.', '-')}", title)
