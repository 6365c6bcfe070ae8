"""Layers of a result: which modules of a ranking cannot be told apart."""

from __future__ import annotations

from typing import Any

from evalharness.results.layers import told_apart
from evalharness.spec.module_results import LayerResult


def test_a_ranking_says_which_neighbours_it_cannot_tell_apart() -> None:
    """Those of one error and kind whose intervals overlap; blocks are ranked by themselves."""

    def row(layer: str, low: float, high: float, kind: Any = "linear") -> LayerResult:
        return LayerResult(
            layer=layer,
            kind=kind,
            type="T",
            error="own",
            tokens=9,
            median=(low + high) / 2,
            low=low,
            high=high,
        )

    rows = [row("a", 0.1, 0.2), row("b", 0.3, 0.5), row("c", 0.4, 0.6), row("d", 0.4, 0.6, "block")]
    found = {r.layer: r.alike for r in told_apart(rows)}
    assert found == {"a": [], "b": ["c"], "c": ["b"], "d": []}
