"""What the charts draw, looked up and ordered: marks, reliability bins, documents."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evalharness.metrics import REGISTRY
from evalharness.metrics.calibration import side_id
from evalharness.metrics.perplexity import NLL_SHIFT
from evalharness.report import tables
from evalharness.report.text import scope_key, scope_words, visible
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import Figures, ReliabilityBin, Result

_WHOLE = {"", "{}", "all", "everything"}  # names of the scope over everything


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
        order = [s for s in ("reference", "candidate") if s in sides]
        ordered = {side: sides[side] for side in order + sorted(set(sides) - set(order))}
        errors = {s: e for s in ordered if (e := _calibration(result, s, name)) is not None}
        words = "everything" if name in _WHOLE else visible(name)
        found.append(Reliability(words, ordered, errors))
    return found


def _calibration(result: Result, side: str, name: str) -> Estimate | None:
    for e in result.metrics:
        names = {scope_key(e.scope), scope_words(e.scope), *e.scope.values()} if e.scope else _WHOLE
        if e.id == side_id(side) and name in names:
            return e
    return None


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
    """Return one row a corpus, in the order of the suite."""
    corpora = dict.fromkeys(str(d.get("corpus", "")) for d in result.figures.nll_by_document)
    rows: dict[str, tuple[list[float], list[int]]] = {corpus: ([], []) for corpus in corpora}
    for d in points(result.figures)[0]:
        rows[d.corpus][0].append(d.shift)
        rows[d.corpus][1].append(d.tokens)
    found = []
    for corpus, (shifts, tokens) in rows.items():
        e = tables.find(result, NLL_SHIFT.id, {"corpus": corpus})
        if e is None and len(rows) == 1:
            e = tables.find(result, NLL_SHIFT.id)
        found.append(
            DocumentRow(corpus, shifts, tokens, *((e.value, e.low, e.high) if e else (None,) * 3))
        )
    return found


@dataclass(frozen=True)
class DocumentPoint:
    """One document with its loss shift."""

    name: str
    corpus: str
    tokens: int
    shift: float
    kl: float | None


def points(figures: Figures) -> tuple[list[DocumentPoint], int]:
    """Return the documents that have a shift, the largest first, and how many have none."""
    found = []
    for d in figures.nll_by_document:
        if (shift := _finite(d.get("shift"))) is not None:
            name, corpus = str(d.get("document", "")), str(d.get("corpus", ""))
            tokens = int(_finite(d.get("tokens")) or 0)
            found.append(DocumentPoint(name, corpus, tokens, shift, _finite(d.get("kl"))))
    found.sort(key=lambda d: (-d.shift, d.corpus, d.name))
    return found, len(figures.nll_by_document) - len(found)


def _finite(x: object) -> float | None:
    """Return a number as a float; None for anything else, NaN and infinity included."""
    return float(x) if isinstance(x, int | float) and math.isfinite(x) else None
