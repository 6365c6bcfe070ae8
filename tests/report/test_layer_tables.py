"""Layers are arranged by the number in their name, and the culprit is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from evalharness.report import heat_map, layer_tables
from evalharness.spec.module_results import LayerResult
from evalharness.spec.result import Result


def layer(name: str, median: float | None, **more: Any) -> LayerResult:
    """One row of a module."""
    fields = {"kind": "linear", "type": name.rpartition(".")[2], "error": "own", "tokens": 100}
    return LayerResult(layer=name, median=median, **{**fields, **more})


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("model.layers.10.mlp.down_proj", 10),
        ("transformer.h.3", 3),
        ("blk.7.attn_q.weight", 7),
        ("layers[4].fc1", 4),
        ("model.layers.2.experts.17.w1", 2),
        ("lm_head", None),
        ("fc1", None),
    ],
)
def test_the_first_whole_number_of_a_name_is_its_block(name: str, index: int | None) -> None:
    """``fc1`` holds a digit, not a block."""
    assert layer_tables.block_index(name) == index


def test_blocks_are_ordered_by_number_not_by_spelling() -> None:
    """2 comes before 10."""
    rows = [layer(f"model.layers.{i}", 0.1, kind="block") for i in (10, 2, 1)]
    labels, curves = layer_tables.blocks(rows)
    assert labels == ["1", "2", "10"]
    assert curves[0].places == [0, 1, 2]


def test_a_block_without_a_number_is_left_out_of_the_curve() -> None:
    """A missing median is a gap, not a zero."""
    rows = [layer("l.0", 0.1, kind="block"), layer("l.1", None, kind="block")]
    labels, curves = layer_tables.blocks(rows)
    assert (labels, curves[0].places) == (["0", "1"], [0])


def test_the_worst_is_the_linear_with_the_largest_own_error() -> None:
    """Total error accumulates over depth and would always blame the last block."""
    rows = [
        layer("model.layers.1.q", 0.2),
        layer("model.layers.9.q", 0.9, error="total"),
        layer("model.layers.5.q", 0.3),
        layer("model.layers.9", 2.0, kind="block"),
    ]
    worst = layer_tables.worst(rows)
    assert worst is not None
    assert worst.layer == "model.layers.5.q"


def test_without_numbers_there_is_no_worst() -> None:
    """None, never an arbitrary layer."""
    assert layer_tables.worst([]) is None
    assert layer_tables.worst([layer("a", None)]) is None


def test_modules_without_a_number_sort_before_the_worst() -> None:
    """What could not be measured is what to look at first."""
    rows = [layer("a", 0.1), layer("b", None), layer("c", 0.2)]
    assert [r.layer for r in layer_tables.worst_first(rows)] == ["b", "c", "a"]


def test_modules_that_share_a_place_show_the_worst_of_them() -> None:
    """Experts of one block and kind are one cell, and the cell says so."""
    rows = [layer(f"l.0.experts.{k}.w1", 0.1 * (k + 1), type="w1") for k in range(3)]
    grid = layer_tables.grid(rows, "own")
    assert grid is not None
    assert len(grid.cells) == 1
    assert grid.cells[0].label.endswith("(worst of 3)")
    assert grid.cells[0].label.startswith("l.0.experts.2.w1")


def test_the_grid_of_a_whole_model_has_every_cell_and_one_worst(
    result: Callable[..., Result],
) -> None:
    """4 blocks × 7 linears; the head stands outside."""
    r = result("FAIL")
    grid = layer_tables.grid(r.layers, "own")
    assert grid is not None
    assert (len(grid.columns), len(grid.rows), len(grid.cells)) == (4, 7, 28)
    assert [c.label.split(":")[0] for c in grid.cells if c.worst] == [
        "model.layers.3.mlp.down_proj"
    ]
    assert [row.layer for row in layer_tables.outside_blocks(r.layers, "own")] == ["lm_head"]
    svg = ET.fromstring(heat_map.heat_map(grid))
    assert len(svg.findall("rect")) == 28
