"""The per-layer errors arranged for reading: curves over depth, a grid, the worst modules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from evalharness.report.glossary import ERROR_KINDS
from evalharness.report.heat_map import Cell, LayerGrid
from evalharness.report.numbers import shown
from evalharness.spec.module_results import LayerResult

_INDEX = re.compile(r"(?:^|[.\[/_])(\d+)(?=$|[.\]/_])")
WORST = 20


@dataclass(frozen=True)
class BlockCurve:
    """One kind of error over depth; ``places`` refer to the labels of :func:`blocks`."""

    error: str
    places: list[int]
    median: list[float]
    low: list[float]
    high: list[float]
    sqnr_db: list[float | None]


@cache
def block_index(name: str) -> int | None:
    """Return the number of the block that a module's name holds: its first whole number.

    >>> block_index("model.layers.10.mlp.down_proj"), block_index("lm_head")
    (10, None)
    """
    found = _INDEX.search(name)
    return int(found.group(1)) if found else None


def blocks(layers: Sequence[LayerResult]) -> tuple[list[str], list[BlockCurve]]:
    """Return the blocks' labels from the input to the output, and a curve for each error."""
    rows = [row for row in layers if row.kind == "block"]
    names = list(dict.fromkeys(row.layer for row in rows))
    if all(block_index(name) is not None for name in names):
        names.sort(key=lambda name: block_index(name) or 0)
    indices = [block_index(name) for name in names]
    unique = None not in indices and len(set(indices)) == len(indices)
    labels = [str(i) for i in indices] if unique else [str(k) for k in range(len(names))]
    place = {name: k for k, name in enumerate(names)}
    curves = []
    for error in kinds(rows):
        found = [
            (place[row.layer], row.median, row)
            for row in rows
            if row.error == error and row.median is not None
        ]
        points = sorted(found, key=lambda point: point[0])
        curves.append(
            BlockCurve(
                error,
                [k for k, _, _ in points],
                [median for _, median, _ in points],
                [median if row.low is None else row.low for _, median, row in points],
                [median if row.high is None else row.high for _, median, row in points],
                [row.sqnr_db for _, _, row in points],
            )
        )
    return labels, [curve for curve in curves if curve.places]


def role(name: str) -> str:
    """Return what a module is in its block, whichever block and expert: its name after the number.

    >>> role("model.layers.10.mlp.down_proj"), role("l.0.experts.3.w1")
    ('mlp.down_proj', 'experts.w1')
    """
    found = _INDEX.search(name)
    rest = name[found.end() :] if found else name
    return ".".join(part for part in rest.split(".") if part and not part.isdigit())


def kinds(rows: Sequence[LayerResult]) -> list[str]:
    """Return the kinds of error present, in the order of the glossary."""
    present = {row.error for row in rows}
    return [e for e in ERROR_KINDS if e in present] + sorted(present - set(ERROR_KINDS))


def own_error(rows: Sequence[LayerResult]) -> str | None:
    """Return the kind of error that names a culprit: own before the total."""
    present = kinds(rows)
    return next((e for e in ("own", "own_on_clean", "total", *present) if e in present), None)


def worst_first(rows: Sequence[LayerResult], error: str | None = None) -> list[LayerResult]:
    """Return rows of one kind of error, the largest median first; those without a number first."""
    kept = [row for row in rows if error is None or row.error == error]
    return sorted(kept, key=lambda r: (r.median is not None, -(r.median or 0.0), r.layer))


def worst(layers: Sequence[LayerResult]) -> LayerResult | None:
    """Return the module with the largest own error: a linear where there are any, else a block."""
    for block in (False, True):
        rows = [row for row in layers if (row.kind == "block") == block and row.median is not None]
        if rows:
            return worst_first(rows, own_error(rows))[0]
    return None


def grid(layers: Sequence[LayerResult], error: str) -> LayerGrid | None:
    """Arrange the linears' error by block and role; None where no name holds a block."""
    rows = [r for r in layers if r.kind != "block" and r.error == error]
    placed = [(index, r) for r in rows if (index := block_index(r.layer)) is not None]
    if not placed:
        return None
    columns = sorted({index for index, _ in placed})
    types = list(dict.fromkeys(role(r.layer) for _, r in placed))
    most = max((r.median for _, r in placed if r.median is not None), default=None)
    together: dict[tuple[int, int], list[LayerResult]] = {}
    for index, r in placed:
        together.setdefault((columns.index(index), types.index(role(r.layer))), []).append(r)
    cells = []
    for (column, row), members in together.items():
        top = worst_first(members)[0]
        text = f"{top.layer}: {shown(top.median, top.low, top.high)}"
        if len(members) > 1:
            text += f" (worst of {len(members)})"
        cells.append(
            Cell(column, row, top.median, text, most is not None and top.median == most > 0)
        )
    return LayerGrid(
        f"{ERROR_KINDS.get(error, error)}, relative L2, block by module type",
        error,
        [str(c) for c in columns],
        types,
        sorted(cells, key=lambda c: (c.row, c.column)),
    )


def outside_blocks(layers: Sequence[LayerResult], error: str) -> list[LayerResult]:
    """Return the linears that belong to no block, such as the head."""
    rows = [r for r in layers if r.kind != "block" and r.error == error]
    return worst_first([r for r in rows if block_index(r.layer) is None])
