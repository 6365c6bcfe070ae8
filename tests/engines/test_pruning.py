"""Pruning by hand, against PyTorch's own, and what the manifest says of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.utils.prune import L1Unstructured

from evalharness.engines.pruning import smallest, two_of_four
from evalharness.engines.recipe import simulate
from evalharness.engines.tensor_storage import miscounted, stored_tensors
from evalharness.engines.treatment import sparsity
from evalharness.spec.model import ModelSpec
from evalharness.spec.simulate import Simulate
from tests.engines.conftest import tiny
from tests.engines.test_compression_manifest import LINEAR, measured
from tests.engines.test_simulate_experts import mixture


def test_two_of_four_by_hand() -> None:
    """The two of least magnitude go, the first of equals; what is left of a row stays."""
    row = torch.tensor([[3.0, -1.0, 2.0, -4.0, 1.0, 1.0, 1.0, 1.0, 0.1]])
    assert two_of_four(row).int().tolist() == [[0, 1, 1, 0, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.77])
def test_magnitude_pruning_is_that_of_torch(share: float) -> None:
    """`torch.nn.utils.prune`, one matrix."""
    weight = torch.randn(24, 36, generator=torch.Generator().manual_seed(0))
    kept = L1Unstructured(share).compute_mask(weight, torch.ones_like(weight))
    assert torch.equal(~smallest(weight, share), kept.bool())


def test_half_of_the_weights_are_zero_and_said_to_be() -> None:
    """Bits count in full: zeros without a pattern are stored."""
    pruning = {"share": 0.5, "exclude": ["lm_head"]}
    got = measured(simulate={"pruning": pruning}, manifest={"sparsity": 0.5})
    assert got.sparsity == 0.5
    assert got.two_of_four is not None
    assert abs(got.two_of_four - 11 / 16) < 0.02  # two or more of four, each with 1/2
    assert "bfloat16 (50% exact zeros)" in [g.storage for g in got.groups]
    assert (got.bits_per_weight, got.kernel, got.disagreements) == (16.0, "simulated", [])


def test_a_pattern_counts_its_places() -> None:
    """Half of 16 bits and 1; with 4 bits in groups of 32: half of 4, 1, and 16/32."""
    only = {"pruning": {"pattern": "2:4", "exclude": ["lm_head"]}}
    both = only | {"weights": {"bits": 4, "group_size": 32, "exclude": ["lm_head"]}}
    for recipe, words, bits in (
        (only, "bfloat16, 2:4 sparse (simulated)", 9.0),
        (both, "int4 group 32 symmetric, 2:4 sparse (simulated)", 3.5),
    ):
        got = measured(simulate=recipe, manifest={"sparsity": "2:4"})
        group = next(g for g in got.groups if g.storage == words)
        assert (group.parameters, group.bits_per_weight) == (LINEAR, bits)
        assert got.two_of_four == 1.0
        assert got.sparsity is not None
        assert got.sparsity >= 0.5
        assert got.disagreements == []


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (0.5, "claims 50% sparsity, but 0.0% of the linear and expert weights are zero"),
        (
            "2:4",
            "claims 2:4 sparsity, but 0.0% of the linear and expert weights are in such a pattern",
        ),
    ],
)
def test_a_claim_of_sparsity_is_held_against_the_weights(claim: Any, message: str) -> None:
    """Of a dense model."""
    assert measured(manifest={"sparsity": claim}).disagreements == [message]


def test_what_is_pruned_stays_zero_when_it_is_quantised() -> None:
    """On an affine grid as well."""
    model = tiny()
    weights = {"bits": 3, "group_size": 32, "symmetric": False}
    how = Simulate.model_validate({"weights": weights, "pruning": {"pattern": "2:4"}})
    gone = two_of_four(model.lm_head.weight.clone())
    simulate(model, how)
    assert bool((model.lm_head.weight[gone] == 0).all())
    assert bool((model.lm_head.weight[~gone] != 0).any())


def test_fused_experts_are_pruned_matrix_by_matrix() -> None:
    """All of the linear and expert weights are in the pattern."""
    model = mixture()
    done = simulate(model, Simulate.model_validate({"pruning": {"pattern": "2:4"}}))
    tensors = list(stored_tensors(model, done))
    assert sparsity(tensors) == (0.5, 1.0)
    assert miscounted(model, tensors) == ""


def test_packed_weights_have_no_sparsity() -> None:
    """Their zeros are not looked for."""
    model = nn.Sequential(nn.Linear(8, 8, bias=False))
    model[0].weight = nn.Parameter(torch.zeros(8, 8, dtype=torch.int8), requires_grad=False)
    assert sparsity(stored_tensors(model, {})) == (None, None)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({}, "give at least one of weights, pruning"),
        ({"pruning": {}}, "give either share or pattern"),
        ({"pruning": {"share": 0.5, "pattern": "2:4"}}, "give either share or pattern"),
        ({"pruning": {"share": 1}}, "less than 1"),
        ({"pruning": {"pattern": "4:8"}}, "Input should be '2:4'"),
    ],
)
def test_a_recipe_that_says_nothing_or_too_much_is_refused(recipe: Any, message: str) -> None:
    """Before a model is loaded."""
    with pytest.raises(ValidationError) as caught:
        ModelSpec.model_validate({"name": "m", "model": {"path": "x"}, "simulate": recipe})
    assert message in str(caught.value)
