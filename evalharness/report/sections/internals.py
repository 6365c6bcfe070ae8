"""The section on weights, activations, calibration, routing, and CKA of unlike models."""

from __future__ import annotations

from typing import Any

from evalharness.report import estimates, heat_map, numbers
from evalharness.report.heat_map import Cell, LayerGrid
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.module_results import Similarity
from evalharness.spec.result import Result

MOST = 20


def render(r: Result) -> str:
    """Tables of what is furthest from the reference, and every estimate that a gate may be on."""
    gated = [
        e for group in estimates.families(r, ("layer",)) for e in (*group.overall, *group.scoped)
    ]
    if not (r.weights or r.activations or r.routing or r.similarity or gated):
        return ""
    weights = sorted(r.weights, key=lambda w: (w.error is not None, -(w.error or 0.0)))
    inputs = [a for a in r.activations if a.side != "calibration"]
    worst = sorted(inputs, key=lambda a: -(a.kurtosis or 0.0))
    named = list(dict.fromkeys(a.layer for a in worst))[: MOST // 2]
    texts = sorted(r.calibration, key=lambda c: -(c.beyond_channel or 0.0))
    return template(
        "sections/internals.html.j2",
        weights=weights[:MOST],
        total=len(r.weights),
        inputs=sorted((a for a in inputs if a.layer in named), key=lambda a: named.index(a.layer)),
        calibration=texts[:MOST],
        routing=r.routing,
        gated=gated,
        similarity=r.similarity,
        cka=heat_map.heat_map(_grid(r.similarity)) if r.similarity else "",
        best=_best(r.similarity) if r.similarity else [],
        shown=numbers.shown,
    )


def _grid(s: Similarity) -> LayerGrid:
    """The matrix as the heat map of the layers draws it."""
    cells = [
        Cell(j, i, v, f"{s.reference[i]} against {s.candidate[j]}: CKA {numbers.figures(v)}", False)
        for i, row in enumerate(s.cka)
        for j, v in enumerate(row)
    ]
    columns = [str(j) for j in range(len(s.candidate))]
    rows = [str(i) for i in range(len(s.reference))]
    return LayerGrid("Linear CKA, reference block by candidate block", "cka", columns, rows, cells)


def _best(s: Similarity) -> list[dict[str, Any]]:
    """Each reference block's most similar one, with both relative depths."""
    depth = [
        {name: (k + 1) / len(names) for k, name in enumerate(names)}
        for names in (s.reference, s.candidate)
    ]
    return [
        b | {"depth": depth[0][b["reference"]], "other": depth[1][b["candidate"]]} for b in s.best
    ]


SECTION = Section(
    "inside",
    "Weights and activations",
    render,
    place=80,
    missing="Not measured: add `probes: [activations]` to the suite.",
)
