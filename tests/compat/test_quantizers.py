"""What breaks when bitsandbytes or torchao moves: how they hold a weight is counted in bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import BitsAndBytesConfig

from evalharness.compat import quantizers as compat
from evalharness.engines.model_config import METHODS

# Every option that CONTRIBUTING, the README and our tests show.
SHOWN = {
    "load_in_4bit",
    "load_in_8bit",
    "bnb_4bit_quant_type",
    "bnb_4bit_compute_dtype",
    "bnb_4bit_use_double_quant",
    "llm_int8_skip_modules",
}


def weight(rows: int = 64, columns: int = 128) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(rows, columns)


@pytest.mark.parametrize("nested", [False, True])
def test_a_4_bit_weight_says_its_type_blocks_and_scales(nested: bool) -> None:
    """Bits per weight and the dense weight come from them."""
    bnb = pytest.importorskip("bitsandbytes")
    layer = bnb.nn.Linear4bit(128, 64, bias=False, quant_type="nf4", compress_statistics=nested)
    layer.weight = bnb.nn.Params4bit(
        weight(), requires_grad=False, quant_type="nf4", compress_statistics=nested
    )
    layer = layer.to("cpu")
    held = compat.four_bit(layer.weight)
    assert held is not None
    assert (held.type, held.block, held.shape) == ("nf4", 64, (64, 128))
    assert next(len(s) for s in held.scales) == 64 * 128 // 64
    assert len(held.scales) == 1 + nested
    dense = compat.dequantized_four_bit(layer.weight)
    assert dense.shape == (64, 128)
    assert float((dense.float() - weight()).abs().mean()) < 0.1
    assert compat.four_bit(nn.Linear(2, 2).weight) is None


def test_an_8_bit_weight_has_scales_before_and_after_the_first_pass() -> None:
    """code · scale / 127 is the weight."""
    bnb = pytest.importorskip("bitsandbytes")
    layer = bnb.nn.Linear8bitLt(128, 64, bias=False, has_fp16_weights=False)
    layer.weight = bnb.nn.Int8Params(weight().half(), requires_grad=False, has_fp16_weights=False)
    layer = layer.to("cpu")
    for _ in range(2):
        assert compat.is_int8(layer, layer.weight)
        scales = compat.int8_scales(layer, layer.weight)
        assert scales is not None
        assert scales.numel() == 64
        dense = layer.weight.data.float() * scales.float()[:, None] / 127
        torch.testing.assert_close(dense, weight(), atol=0.03, rtol=0)
        layer(torch.randn(1, 128).half())
    dense_layer = nn.Linear(2, 2)
    assert not compat.is_int8(dense_layer, dense_layer.weight)


def test_the_options_of_bitsandbytes_are_in_the_signature() -> None:
    """A key with a typo is refused by it; the class itself drops what it does not know."""
    assert set(compat.option_names(BitsAndBytesConfig)) >= SHOWN


def test_torchaos_schemes_are_the_classes_named_config() -> None:
    """``quant_type: int8_weight_only`` and groups are found by name."""
    pytest.importorskip("torchao")
    schemes = compat.torchao_schemes()
    assert {"Int8WeightOnly", "IntxWeightOnly"} <= schemes.keys()
    assert "granularity" in compat.option_names(schemes["IntxWeightOnly"])
    assert compat.per_group(32).group_size == 32


def test_a_torchao_weight_says_what_shares_a_scale_and_what_its_codes_are() -> None:
    """4-bit codes in groups of 32, held in int8."""
    pytest.importorskip("torchao")
    from torchao.quantization import quantize_

    scheme = compat.torchao_schemes()["IntxWeightOnly"]
    layer = nn.Sequential(nn.Linear(128, 64, bias=False))
    quantize_(layer, scheme(weight_dtype=torch.int4, granularity=compat.per_group(32)))
    held = layer[0].weight
    assert compat.columns_of_a_scale(held) == 32
    assert compat.code_dtype(held) is torch.int4
    assert hasattr(held.data, "dequantize")
    assert hasattr(held, "__tensor_flatten__")
    assert compat.code_dtype(weight()) is compat.columns_of_a_scale(weight()) is None


def test_the_methods_that_are_supported_are_those_of_transformers() -> None:
    """But for what no checkpoint holds, and for quanto and HQQ, whose storage is not measured."""
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    known = set(AUTO_QUANTIZATION_CONFIG_MAPPING) | {"bitsandbytes"}
    assert known - {"quanto", "hqq", "gguf", "gemma"} == METHODS
