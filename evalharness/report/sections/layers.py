"""Where the error comes from: blocks over depth, linears by kind, the worst modules."""

from __future__ import annotations

from markupsafe import Markup

from evalharness.report import glossary, heat_map, layer_tables, numbers
from evalharness.report.charts import blocks
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result

MISSING = "Not measured: add `probes: [layers]` to the suite."


def render(r: Result) -> str:
    """Where the error comes from: blocks over depth, linears by kind, the worst modules."""
    if not r.layers and r.matching is None:
        return ""
    labels, curves = layer_tables.blocks(r.layers)
    linears = [row for row in r.layers if row.kind != "block"]
    own = layer_tables.own_error(linears)
    kinds = sorted(layer_tables.kinds(linears), key=lambda error: error != own)
    grids = [g for error in kinds if (g := layer_tables.grid(r.layers, error)) is not None]
    return template(
        "sections/layers.html.j2",
        measured=bool(r.layers),
        unlike=r.similarity is not None,
        missing=MISSING,
        worst=layer_tables.worst(r.layers),
        svg=Markup(blocks.curves(curves, labels)),  # noqa: S704
        grids=[(g, heat_map.heat_map(g), heat_map.heat_legend(g)) for g in grids],
        worst_linears=layer_tables.worst_first(linears, own)[: layer_tables.WORST],
        linears=sum(row.error == own for row in linears),
        outside=layer_tables.outside_blocks(r.layers, own) if own else [],
        blocks=[row for row in r.layers if row.kind == "block"],
        kinds=glossary.ERROR_KINDS,
        matching=r.matching,
        shown=numbers.shown,
    )


SECTION = Section(
    "layers",
    "Layers",
    render,
    place=70,
    missing=MISSING,
)
