"""Codes, scales and zero points of packed formats, against arithmetic by hand.

`compressed_modules.json` holds what compressed-tensors 0.20.0 makes of a linear module of 64 × 64
in groups of 32 (NVFP4: 16), as transformers 5.23 loads it; where that library is installed its
checkpoints are made and loaded here.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from evalharness.engines.device_memory import weight_bytes
from evalharness.engines.loading import load
from evalharness.engines.tensor_storage import StoredTensor, miscounted, saved_bits, stored_tensors
from evalharness.engines.treatment import compressed_share, treatment
from tests.engines.conftest import Make, byte_tokenizer, tiny

LAYOUTS = json.loads(Path(__file__).with_name("compressed_modules.json").read_text())
SCHEMES = ("weights", "input_activations")
WEIGHTS = 64 * 64


def compressed(scheme: str) -> nn.Module:
    """A linear module as compressed-tensors leaves it until its first call."""
    layout = LAYOUTS[scheme]
    layer: Any = nn.Linear(64, 64, bias=False)
    del layer.weight
    for name, (dtype, shape) in layout["tensors"].items():
        value = torch.zeros(shape, dtype=getattr(torch, dtype))
        if name == "weight_shape":
            value = torch.tensor([64, 64])
        setattr(layer, name, nn.Parameter(value, requires_grad=False))
    given = {k: v and SimpleNamespace(**v) for k, v in layout.items() if k in SCHEMES}
    inputs = given["input_activations"]
    layer.quantization_scheme = SimpleNamespace(weights=given["weights"], input_activations=inputs)
    layer.quantization_status = layout["status"]
    return layer


def gptq(weights: int, wide: int, **attributes: Any) -> nn.Module:
    """A module of 64 × 48 whose codes take ``weights`` · ``wide`` bits in int32, group 32."""

    class QuantLinear(nn.Module):
        group_size = 32

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer(
                "qweight", torch.zeros(64 * wide // 32, weights // 64, dtype=torch.int32)
            )
            self.register_buffer("scales", torch.zeros(2, 48, dtype=torch.float16))
            self.register_buffer("qzeros", torch.zeros(2, 48 // 8, dtype=torch.int32))
            self.register_buffer("bias", torch.zeros(48, dtype=torch.float16))

    made = QuantLinear()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def only(module: nn.Module) -> StoredTensor:
    """The one tensor of ``module`` that has weights, everything counted."""
    model = nn.Sequential(module)
    found = list(stored_tensors(model, {}))
    assert miscounted(model, found) == ""
    (one,) = (t for t in found if not t.name.endswith("bias"))
    return one


@pytest.mark.parametrize(
    ("scheme", "kind", "bits"),
    [
        # codes; a bfloat16 scale for 32 columns; two int64 of the shape
        ("W4A16", "int4 group 32 symmetric (compressed-tensors)", 4 + 16 / 32 + 128 / WEIGHTS),
        ("W8A8", "int8 per channel symmetric (compressed-tensors)", 8 + 16 / 64),
        # a bfloat16 scale of the weight, and one of its inputs
        ("FP8", "float8_e4m3fn per tensor (compressed-tensors)", 8 + 32 / WEIGHTS),
        # a float8 scale for 16 columns; two float32 of the tensor and of its inputs
        ("NVFP4", "nvfp4 group 16 (compressed-tensors)", 4 + 8 / 16 + 64 / WEIGHTS),
        ("MXFP4", "mxfp4 group 32 (compressed-tensors)", 4 + 8 / 32),
    ],
)
def test_compressed_tensors_are_counted_with_all_they_hold(
    scheme: str, kind: str, bits: float
) -> None:
    """Nothing is counted on its packing: 4,096 weights, whatever holds them."""
    found = only(compressed(scheme))
    assert (found.kind, found.parameters) == (kind, WEIGHTS)
    assert found.bits / WEIGHTS == bits
    assert found.code_bits == (8 if "8" in scheme else 4)


@pytest.mark.parametrize(
    ("scheme", "inputs"),
    [
        ("W4A16", "not quantised"),
        ("W8A8", "int8 per token, dynamic"),
        ("FP8", "float8 per tensor, static"),
        ("MXFP4", "float4 group 32, dynamic"),
    ],
)
def test_activations_are_named(scheme: str, inputs: str) -> None:
    """A checkpoint of 8-bit weights and activations does not read like one of weights alone."""
    model = nn.Sequential(compressed(scheme))
    found = treatment(model, list(stored_tensors(model, {})), simulated=False, unpacked=True)
    assert found.activations == inputs
    assert found.kernel == "dequantised on the first forward pass"


@pytest.mark.parametrize("names", [("in_features", "out_features"), ("infeatures", "outfeatures")])
def test_packed_buffers_are_weights_by_either_name_of_their_sizes(names: tuple[str, str]) -> None:
    """AutoRound says infeatures. A float16 scale and 4 bits of a zero point for 32 weights."""
    found = only(gptq(64 * 48, 4, **dict(zip(names, (64, 48), strict=True))))
    assert (found.name, found.parameters) == ("0.qweight", 64 * 48)
    assert found.kind == "int4 group 32 symmetric (QuantLinear)"
    assert found.bits / found.parameters == 4 + 20 / 32


def test_a_bias_in_a_buffer_is_a_parameter() -> None:
    """As AutoRound keeps it."""
    module = gptq(64 * 48, 4, in_features=64, out_features=48)
    found = {t.name: t for t in stored_tensors(nn.Sequential(module), {})}
    assert (found["0.bias"].parameters, found["0.bias"].bits) == (48, 48 * 16)


def test_codes_whose_weights_are_not_said_are_not_measured() -> None:
    """Rather than counted as the integers that hold them."""
    model = nn.Sequential(gptq(64 * 48, 4))
    found = list(stored_tensors(model, {}))
    assert miscounted(model, found) == (
        "0.qweight: QuantLinear does not say how many weights it packs"
    )
    assert compressed_share(found) is None


def test_a_scheme_that_the_codes_contradict_is_not_measured() -> None:
    """Four bits are said, and there is room for two."""
    model = nn.Sequential(gptq(64 * 48, 2, in_features=64, out_features=48, bits=4))
    assert miscounted(model, list(stored_tensors(model, {}))) == (
        "0.qweight: QuantLinear says 4 bits, and its codes take 2 bits a weight"
    )


def test_integers_of_no_known_form_are_not_measured() -> None:
    """As the codebooks of AQLM."""
    layer: Any = nn.Linear(64, 64, bias=False)
    del layer.weight
    layer.codes = nn.Parameter(torch.zeros(64, 8, 1, dtype=torch.int16), requires_grad=False)
    model = nn.Sequential(layer)
    assert "0.codes: integers whose weights are not known" in miscounted(
        model, list(stored_tensors(model, {}))
    )


def test_what_is_counted_is_held_against_the_state_dict() -> None:
    """A tensor that only the state dict knows is missed."""

    class Hidden(nn.Linear):
        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "codes"] = torch.zeros(64, 64)

    model = nn.Sequential(Hidden(64, 64, bias=False))
    assert miscounted(model, list(stored_tensors(model, {}))) == (
        "the tensors that were counted take 16,384 bytes, and the state dict of Sequential 32,768"
    )


def test_buffers_that_are_saved_are_bits_without_parameters() -> None:
    """Running statistics, say."""
    layer = nn.Linear(64, 64, bias=False)
    layer.register_buffer("mean", torch.zeros(64))
    layer.register_buffer("cache", torch.zeros(64), persistent=False)
    model = nn.Sequential(layer)
    found = {t.name: (t.parameters, t.bits) for t in stored_tensors(model, {})}
    assert found == {"0.weight": (WEIGHTS, 32 * WEIGHTS), "0.mean": (0, 2048)}


def made(scheme: str, place: Path) -> None:
    """A checkpoint of the tiny model that compressed-tensors compressed."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationConfig,
        apply_quantization_config,
        preset_name_to_scheme,
    )

    model = tiny()
    found = preset_name_to_scheme(scheme, ["Linear"])
    if found.weights.group_size == 128:
        found.weights.group_size = 32
    config = QuantizationConfig(config_groups={"all": found}, ignore=["lm_head"])
    apply_quantization_config(model, config)
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            if name.endswith("scale"):
                value.data = torch.full_like(value, 1.0, dtype=torch.float32).to(value.dtype)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(place)
    compressor.update_config(place)
    byte_tokenizer().save_pretrained(place)


@pytest.mark.parametrize("scheme", ["W4A16", "W8A8", "NVFP4", "MXFP4"])
def test_a_real_checkpoint_is_counted_by_its_files_and_after_its_first_pass(
    scheme: str, spec: Make, tmp_path: Path
) -> None:
    """Oracle: the safetensors file, and the state dict after a forward pass."""
    made(scheme, tmp_path)
    got = load(spec(tmp_path))
    manifest = got.manifest
    assert manifest.parameters == tiny().num_parameters()
    assert manifest.weight_bytes == manifest.counted_bytes
    assert manifest.weight_bytes is not None
    assert 0 < (tmp_path / "model.safetensors").stat().st_size - manifest.weight_bytes < 20_000
    assert (manifest.ships, manifest.compressed_share, manifest.disagreements) == ("files", 1.0, [])
    got.model(torch.arange(8)[None])
    assert manifest.resident_bytes == saved_bits(got.model) // 8


@pytest.mark.parametrize("scheme", ["W4A16", "W8A8", "NVFP4"])
def test_the_memory_that_the_first_pass_takes_is_planned(scheme: str, tmp_path: Path) -> None:
    """Oracle: the state dict after that pass; only scales that change their dtype are off."""
    made(scheme, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    model(torch.arange(8)[None])
    planned = weight_bytes(tmp_path, "auto")
    assert planned == pytest.approx(saved_bits(model) // 8, rel=0.03)


def test_codes_are_planned_as_the_weights_they_become(tmp_path: Path) -> None:
    """Four bits in int32: 64 × 64 weights of two bytes; a scale stays what it is."""
    from safetensors.torch import save_file

    held = {
        "a.weight_packed": torch.zeros(64, 8, dtype=torch.int32),
        "a.weight_scale": torch.zeros(64, 2, dtype=torch.bfloat16),
        "b.weight": torch.zeros(64, 64, dtype=torch.int8),
    }
    save_file(held, tmp_path / "model.safetensors")
    weights = {"num_bits": 4, "group_size": 32}
    config: dict[str, Any] = {"dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert weight_bytes(tmp_path, "auto") == 64 * 8 * 4 + 64 * 2 * 2 + 64 * 64
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "config_groups": {"all": {"weights": weights}},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert weight_bytes(tmp_path, "auto") == 2 * 64 * 64 * 2 + 64 * 2 * 2
    assert weight_bytes(tmp_path, "float32") == 2 * 64 * 64 * 4 + 64 * 2 * 4


def test_blocks_are_what_the_module_says_and_not_a_share_of_the_matrix() -> None:
    """DeepSeek's FP8: 320 rows in blocks of 128 are three, the last of 64."""
    layer: Any = nn.Linear(256, 320, bias=False)
    codes = torch.zeros(320, 256, dtype=torch.float8_e4m3fn)
    layer.weight = nn.Parameter(codes, requires_grad=False)
    layer.weight_scale_inv = nn.Parameter(torch.ones(3, 2), requires_grad=False)
    layer.block_size, layer.activation_scheme = (128, 128), "dynamic"
    model = nn.Sequential(layer)
    (found,) = stored_tensors(model, {})
    assert found.kind == "float8_e4m3fn blocks of 128 × 128 (Linear)"
    assert found.bits == 8 * 320 * 256 + 32 * 6
    how = treatment(model, [found], simulated=False, unpacked=False)
    assert (how.activations, how.kernel) == ("float8, dynamic", "low-bit")
