"""Matching of modules by name, without wrappers, by declared fusion, and never by position."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evalharness.pair.matching import match
from evalharness.probes.layer_watcher import LayerWatcher
from tests.workflow.jobs import compared


def test_modules_of_one_name_are_exact_matches(side: Callable) -> None:
    pairs, report = match(side().model, side(1).model)
    assert (report.exact, report.renamed, report.fused) == (17, [], [])
    assert report.unmatched_reference == report.unmatched_candidate == report.notes == []
    assert [p.block for p in pairs if p.name.endswith("q_proj")] == [
        "model.layers.0",
        "model.layers.1",
    ]


def test_layers_1_is_not_taken_for_layers_10(side: Callable) -> None:
    pairs, _ = match(*(side(num_hidden_layers=12).model for _ in range(2)))
    inside = [p for p in pairs if p.kind == "linear" and p.block is not None]
    assert all(p.name.startswith(f"{p.block}.") for p in inside)
    assert sum(p.block == "model.layers.1" for p in inside) == 7


def test_blocks_of_models_of_different_depth_are_not_matched_by_their_numbers(
    side: Callable,
) -> None:
    """A block's name is its position; what lies outside the blocks is still compared."""
    pairs, report = match(*(side(num_hidden_layers=n).model for n in (12, 2)))
    assert [p.name for p in pairs] == ["lm_head"]
    assert any(n.startswith("model.layers.10 ") for n in report.unmatched_reference)
    assert any(n.startswith("model.layers.1 ") for n in report.unmatched_candidate)
    assert "the depths differ (12 and 2 blocks)" in report.notes[0]


def test_wrappers_are_taken_off_and_said(side: Callable) -> None:
    class Peft(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.base_model = nn.Module()
            self.base_model.model = model

    pairs, report = match(side().model, Peft(side().model))
    assert report.exact == 0
    assert len(report.renamed) == len(pairs) == 17
    assert "model.layers.0 ↔ base_model.model.model.layers.0" in report.renamed


def test_the_parts_of_a_lora_linear_are_not_modules_of_their_own(side: Callable) -> None:
    candidate = side().model
    inner = candidate.model.layers[0].mlp.up_proj
    wrapper = nn.Module()
    wrapper.in_features, wrapper.out_features = inner.in_features, inner.out_features
    wrapper.base_layer, wrapper.lora_A = inner, nn.Linear(inner.in_features, 2)
    candidate.model.layers[0].mlp.up_proj = wrapper
    _, report = match(side().model, candidate)
    assert report.exact == 17
    assert report.unmatched_candidate == []


class _Fused(nn.Module):
    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        both = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        self.gate_up_proj = nn.Linear(both.shape[1], both.shape[0], bias=False)
        self.gate_up_proj.weight = nn.Parameter(both, requires_grad=False)
        self.down_proj, self.act_fn = mlp.down_proj, mlp.act_fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        return self.down_proj(self.act_fn(gate) * up)


def fuse(side: Any) -> Any:
    for layer in side.model.model.layers:
        layer.mlp = _Fused(layer.mlp)
    return side


def test_a_fused_module_is_compared_with_its_parts_side_by_side(side: Callable) -> None:
    """Either way round; the model is the same, so the error is rounding."""
    for reference, candidate in ((side(), fuse(side())), (fuse(side()), side())):
        probe = LayerWatcher(reference, candidate, True, ("total", "own"))
        assert len(probe.matching.fused) == 2
        assert probe.matching.unmatched_reference == probe.matching.unmatched_candidate == []
        probe.begin([0])
        ids = torch.arange(1, 25).reshape(2, 12)
        with torch.inference_mode():
            probe.run(ids, ids, torch.zeros(2, 12).long(), torch.arange(12).expand(2, 12))
        rows = [r for r in probe.table().to_pylist() if r["layer"].endswith("mlp.gate_up_proj")]
        assert {r["error"] for r in rows} == {"total", "own"}
        assert len(rows) == 4
        for r in rows:
            assert r["tokens"] == 22
            assert r["err_sq"] <= 1e-10 * r["ref_sq"]


def test_another_width_is_unmatched_and_said(side: Callable) -> None:
    pairs, report = match(side().model, side(hidden_size=16).model)
    assert not any(p.kind == "block" for p in pairs)
    assert "the hidden sizes differ (32 and 16)" in report.notes[0]


def test_a_head_that_was_tied_again_is_noticed(side: Callable) -> None:
    candidate = side()
    candidate.model.lm_head.weight = candidate.model.model.embed_tokens.weight
    _, report = match(side().model, candidate.model)
    assert len(report.notes) == 1
    assert "tied to its embedding and the reference's is not" in report.notes[0]


def test_unmatched_modules_pass_no_layer_gate(project: Path, tiny: Callable) -> None:
    """The candidate lacks a block; a gate over all layers cannot pass on the other."""
    (project / "candidate.yaml").write_text(
        f"version: 1\nname: shallow\nmodel: {{path: {tiny(num_hidden_layers=1)}, dtype: float32, "
        "device: cpu}\n"
    )
    (project / "gates.yaml").write_text(
        "version: 1\nname: g\ngates:\n"
        '  - {metric: layer.error.total, scope: {layer: "model.layers.*"}, max: 1000, min_n: 2}\n'
    )
    found = compared(project)
    assert found.result.verdict != "PASS"
    assert any("depths differ" in w for w in found.result.warnings)
