"""Fused experts: three-dimensional weights, quantised matrix by matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM

from evalharness.engines.simulate import fake_quantize, select
from evalharness.engines.tensor_storage import miscounted, stored_tensors
from evalharness.engines.treatment import compressed_share
from tests.engines.test_simulate import loop, recipe


def mixture() -> Any:
    """A random Mixtral of one layer with four experts of 16 × 32."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    return MixtralForCausalLM(config).eval().requires_grad_(False)


@pytest.mark.parametrize("granularity", ["group", "channel", "tensor"])
def test_fused_experts_are_quantised_one_by_one(granularity: str) -> None:
    """Oracle: the loop over each expert's matrix alone."""
    model = mixture()
    held = model.model.layers[0].mlp.experts
    before = held.gate_up_proj.clone()
    how = recipe(3, granularity, **({"group_size": 8} if granularity == "group" else {}))
    done = fake_quantize(model, how)
    for expert in range(4):
        expected = loop(before[expert].numpy(), how)
        np.testing.assert_allclose(held.gate_up_proj[expert].numpy(), expected, rtol=0, atol=1e-6)
    scales = {"group": 4 * 32 * 4, "channel": 4 * 32, "tensor": 4}[granularity]
    assert done["model.layers.0.mlp.experts.gate_up_proj"].scales == scales
    assert "model.layers.0.mlp.experts.down_proj" in done


def test_experts_that_hold_their_inputs_first_are_grouped_along_them() -> None:
    """(E, I, O), as gpt-oss has them."""
    plain, turned = mixture(), mixture()
    experts = turned.model.layers[0].mlp.experts
    experts.is_transposed = True
    for name, value in list(experts.named_parameters()):
        setattr(experts, name, nn.Parameter(value.transpose(1, 2).contiguous(), False))
    how = recipe(3, group_size=8, include=("*.experts",))
    fake_quantize(plain, how)
    fake_quantize(turned, how)
    for name, value in plain.model.layers[0].mlp.experts.named_parameters():
        assert torch.equal(getattr(experts, name).transpose(1, 2), value)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"include": ("*.experts",)}, {"gate_up_proj", "down_proj"}),
        ({"include": ("*.experts.down_proj",)}, {"down_proj"}),
        ({"include": ("*.experts",), "exclude": ("*.gate_up_proj",)}, {"down_proj"}),
    ],
)
def test_experts_are_named_whole_or_in_part(options: dict[str, Any], parts: set[str]) -> None:
    """By their module, or by the parameter."""
    found = select(mixture(), recipe(**options))
    assert {n.rpartition(".")[2] for n in found} == parts


ATTENTION, EXPERTS = 4 * 32 * 32, 4 * 3 * 16 * 32


@pytest.mark.parametrize(
    ("include", "covered"),
    [
        # a router is no nn.Linear, and stays in full precision
        (("*",), ATTENTION + EXPERTS),
        (("*.self_attn.*",), ATTENTION),
    ],
)
def test_how_much_of_the_linear_weights_a_recipe_covers(
    include: tuple[str, ...], covered: int
) -> None:
    """By hand; the head and the embedding are no part of it."""
    model = mixture()
    done = fake_quantize(model, recipe(2, group_size=8, include=include))
    tensors = list(stored_tensors(model, done))
    assert compressed_share(tensors) == covered / (ATTENTION + EXPERTS)
    assert miscounted(model, tensors) == ""
