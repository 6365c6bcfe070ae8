"""Weights on a coarse grid are recognised in a wide dtype, and dense ones are not."""

from __future__ import annotations

import pytest
import torch

from evalharness.engines.quantization_grid import ValueGrid, effective_bits
from evalharness.engines.rounding import quantize_weight
from evalharness.spec.simulate import WeightQuantizer


def normal(rows: int = 64, columns: int = 512, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("columns", [32, 64, 100, 576, 4096])
def test_dense_weights_are_on_no_grid(dtype: torch.dtype, columns: int) -> None:
    """bfloat16 has many equal values in a long row, and still no grid."""
    assert effective_bits(normal(columns=columns).to(dtype)) is None


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 1.0])
def test_pruned_weights_are_on_no_grid(share: float) -> None:
    """Zeros are no evidence of a grid."""
    weight = normal().bfloat16()
    weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(3)) < share] = 0
    assert effective_bits(weight) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("bits", "group", "expected"),
    [
        (2, 32, ValueGrid(2, "32 columns")),
        (3, 32, ValueGrid(3, "32 columns")),
        (4, 32, ValueGrid(4, "32 columns")),
        (4, 128, ValueGrid(4, "128 columns")),
        (6, 128, ValueGrid(6, "128 columns")),
        (8, 512, ValueGrid(8, "row")),
    ],
)
@pytest.mark.parametrize("symmetric", [True, False])
def test_quantised_weights_are_on_their_grid(
    dtype: torch.dtype, bits: int, group: int, expected: ValueGrid, symmetric: bool
) -> None:
    """The width, and the longest run that shares a scale."""
    how = WeightQuantizer(bits=bits, group_size=group, symmetric=symmetric)
    hat = quantize_weight(normal(), how)[0].to(dtype)
    found = effective_bits(hat)
    assert found is not None
    assert found.bits <= expected.bits
    assert found.span == expected.span
    assert effective_bits(hat.T.contiguous(), transposed=True) == found


def test_five_bits_in_groups_of_32_cannot_be_seen() -> None:
    """Stated in the module: a run has no more values than the grid."""
    how = WeightQuantizer(bits=5, group_size=32)
    assert effective_bits(quantize_weight(normal(), how)[0]) is None


def test_narrow_weights_are_not_judged() -> None:
    """Fewer than 32 columns say nothing."""
    assert effective_bits(torch.zeros(8, 16)) is None
    assert effective_bits(torch.zeros(0, 64)) is None
