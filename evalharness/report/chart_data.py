"""What the charts draw, looked up and ordered: marks, reliability bins, documents."""

from __future__ import annotations

from dataclasses import dataclass

from evalharness.metrics import REGISTRY
from evalharness.metrics.calibration import side_id
from evalharness.metrics.perplexity import NLL_SHIFT
from evalharness.report import tables
from evalharness.report.text import visible
from evalharness.spec.estimate import Estimate, Scope
from evalharness.spec.result import NEXT_TOKEN, DocumentShift, ReliabilityBin, Result


def kl_marks(result: Result) -> dict[str, float]:
    """Return label → value of the KL statistics that the distribution is marked with."""
    found = ((m.mark, tables.find(result, m.id)) for m in REGISTRY.values() if m.mark)
    return {label: e.value for label, e in found if e is not None and e.value is not None}


@dataclass(frozen=True)
class Reliability:
    """The reliability bins of both sides in one scope."""

    name: str
    sides: dict[str, list[ReliabilityBin]]
    errors: dict[str, Estimate]  # side → its calibration error


def reliabilities(result: Result) -> list[Reliability]:
    """Return the scopes with bins, each side titled with its calibration error."""
    found = []
    for name, sides in result.figures.reliability.items():
        scope: Scope = {} if name == NEXT_TOKEN else {"task": name}
        errors = {side: tables.find(result, side_id(side), scope) for side in sides}
        known = {side: e for side, e in errors.items() if e is not None}
        found.append(Reliability(visible(name), sides, known))
    return found


@dataclass(frozen=True)
class DocumentRow:
    """The documents of one corpus, with the corpus's own estimate."""

    corpus: str
    shifts: list[float]
    tokens: list[int]
    value: float | None
    low: float | None
    high: float | None


def documents(result: Result) -> list[DocumentRow]:
    """Return one row a corpus, in the order of the suite; documents without a number left out."""
    given = result.figures.nll_by_document
    rows: dict[str, list[tuple[float, int]]] = {d.corpus: [] for d in given}
    for d in given:
        if d.shift is not None:
            rows[d.corpus].append((d.shift, d.tokens))
    found = []
    for corpus, points in rows.items():
        # A lone corpus is everything.
        e = tables.find(result, NLL_SHIFT.id, {"corpus": corpus} if len(rows) > 1 else {})
        ends = (None, None, None) if e is None else (e.value, e.low, e.high)
        found.append(DocumentRow(corpus, [s for s, _ in points], [n for _, n in points], *ends))
    return found


def most_shifted(result: Result) -> tuple[list[DocumentShift], int]:
    """Return the documents that have a shift, the largest first, and how many have none."""
    given = result.figures.nll_by_document
    known = [(d.shift, d) for d in given if d.shift is not None]
    known.sort(key=lambda pair: (-pair[0], pair[1].corpus, pair[1].document))
    return [d for _, d in known], len(given) - len(known)
