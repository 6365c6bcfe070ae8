"""NF4, FP8 and MXFP4 against other implementations of the same formats."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from evalharness.engines.rounding import nearest, quantize_weight
from evalharness.engines.simulate import fake_quantize
from evalharness.spec.simulate import WeightQuantizer
from tests.engines.conftest import tiny


def recipe(**options: Any) -> WeightQuantizer:
    return WeightQuantizer.model_validate(options)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("format", "dtype"),
    [("fp8_e4m3", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2)],
)
def test_fp8_is_rounded_as_torch_rounds_it(format: str, dtype: torch.dtype) -> None:
    """All of its values, what lies between two, and random numbers down to the subnormal."""
    codes = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    grid = codes[codes.isfinite()].unique()
    between = (grid[1:] + grid[:-1]) / 2
    x = torch.cat([grid, between, normal(20_000), normal(20_000) * 1e-3, normal(99) * 1e-6])
    assert torch.equal(nearest(x, format), x.to(dtype).float())


def test_mxfp4_is_rounded_as_ml_dtypes_rounds_it() -> None:
    """Ties go to the even mantissa; beyond 6 is 6."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = torch.cat([torch.arange(-8, 8.01, 0.125), normal(5000) * 3])
    expected = x.clamp(-6, 6).numpy().astype(ml_dtypes.float4_e2m1fn).astype("float32")
    assert torch.equal(nearest(x, "mxfp4"), torch.from_numpy(expected))


def test_a_block_of_mxfp4_by_hand() -> None:
    """max|x| = 7 gives s = 2^(2 - 2) = 1 and is clipped to 6; .3 is nearer to .5 than to 0."""
    row = torch.zeros(1, 64)
    row[0, :4] = torch.tensor([7.0, -2.4, 0.3, 0.2])
    row[0, 32:34] = torch.tensor([0.07, -0.05])  # floor(log2 .07) = -4: s = 2^-6 = .015625
    hat, values, scale, _ = quantize_weight(row, recipe(format="mxfp4"))
    assert scale.tolist() == [[1.0, 0.015625]]
    assert values[0, :4].tolist() == [6.0, -2.0, 0.5, 0.0]
    assert hat[0, 32:34].tolist() == [4 * 0.015625, -3 * 0.015625]


def test_nf4_is_that_of_bitsandbytes() -> None:
    """The published implementation, in blocks of 64."""
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = normal(32, 128)
    codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    expected = functional.dequantize_4bit(codes, state)
    torch.testing.assert_close(quantize_weight(weight, recipe(format="nf4"))[0], expected)


@pytest.mark.parametrize("format", ["nf4", "fp8_e4m3", "fp8_e5m2", "mxfp4"])
def test_zeros_stay_zero_and_nothing_overflows(format: str) -> None:
    """A row of zeros, one of the smallest numbers, one of the largest."""
    row = torch.zeros(3, 64)
    row[1, ::2] = 1e-45
    row[2, ::2] = 3e38
    hat = quantize_weight(row, recipe(format=format))[0]
    assert bool(hat.isfinite().all())
    assert bool((hat[row == 0] == 0).all())


@pytest.mark.parametrize(
    ("format", "words", "bits"),
    [
        ("nf4", "nf4 group 64 (simulated)", 4 + 16 / 64),
        ("mxfp4", "mxfp4 group 32 (simulated)", 4 + 8 / 32),
        ("fp8_e4m3", "fp8_e4m3 per channel (simulated)", 8 + 16 / 64),
    ],
)
def test_each_format_says_itself_and_its_bits(format: str, words: str, bits: float) -> None:
    """Of a matrix with 64 columns, by hand."""
    done = fake_quantize(tiny(), recipe(format=format))["model.layers.0.self_attn.q_proj"]
    assert (str(done), done.total_bits / done.weights) == (words, bits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "nf4", "bits": 3}, "format: nf4 has bits: 4 (got 3)"),
        ({"format": "nf4", "symmetric": False}, "format: nf4 has symmetric: true (got False)"),
        ({"format": "mxfp4", "group_size": 64}, "format: mxfp4 has group_size: 32 (got 64)"),
        ({"format": "fp8_e4m3", "clip": "mse"}, "format: fp8_e4m3 has clip: minmax (got 'mse')"),
        ({"format": "int"}, "Field required"),
        ({"format": "fp4"}, "Input should be 'int', 'nf4'"),
    ],
)
def test_what_a_format_is_not_is_refused(options: dict[str, Any], message: str) -> None:
    """A recipe means what it says."""
    with pytest.raises(ValidationError) as caught:
        recipe(**options)
    assert message in str(caught.value)
