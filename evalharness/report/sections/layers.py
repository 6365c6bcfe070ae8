"""Where the error comes from: blocks over depth, linears by kind, the worst modules."""

from __future__ import annotations

from markupsafe import Markup

from evalharness.report import bars, charts, glossary, layer_tables, numbers, tables
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result


def render(r: Result) -> str:
    """Where the error comes from: blocks over depth, linears by kind, the worst modules."""
    groups = tables.families(r, ("layer",))
    if not r.layers:
        return template("sections/metrics.html.j2", groups=groups) if groups else ""
    labels, curves = layer_tables.blocks(r.layers)
    linears = [row for row in r.layers if row.kind != "block"]
    own = layer_tables.own_error(linears)
    kinds = sorted(layer_tables.kinds(linears), key=lambda error: error != own)
    grids = [g for error in kinds if (g := layer_tables.grid(r.layers, error)) is not None]
    return template(
        "sections/layers.html.j2",
        worst=layer_tables.worst(r.layers),
        svg=Markup(charts.layer_curves(curves, labels)),  # noqa: S704
        grids=[(g, bars.heat_map(g), bars.heat_legend(g)) for g in grids],
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
    missing="Not measured: add `probes: [layers]` to the suite.",
)
