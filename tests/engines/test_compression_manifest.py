"""Storage groups, bits per weight and disagreements, against arithmetic by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evalharness.engines.compression_manifest import (
    compression_manifest,
    disagreements,
    file_types,
    group,
)
from evalharness.engines.file_headers import gguf_tensors
from evalharness.engines.recipe import simulate
from evalharness.engines.simulate import fake_quantize
from evalharness.engines.tensor_storage import stored_tensors
from evalharness.spec.model import Claims, ModelSource, ModelSpec
from evalharness.spec.result import CompressionManifest
from tests.engines.conftest import byte_tokenizer, tiny

# The tiny Llama: 64 wide, 2 layers. q and o are 64 × 64, k and v 32 × 64; the three of the MLP
# 128 × 64; embedding and head 256 × 64; five norms of 64.
LINEAR = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64)
EMBEDDING = HEAD = 256 * 64
NORMS = 5 * 64
ALL = LINEAR + EMBEDDING + HEAD + NORMS
RECIPE = {"bits": 4, "group_size": 32, "exclude": ["lm_head"]}
HEAD_TOO = RECIPE | {"exclude": [], "include": ["*", "lm_head"]}


def measured(model: Any = None, **options: Any) -> CompressionManifest:
    """Measure ``model`` (default: the tiny one) after what ``options`` simulate."""
    model = model or tiny()
    spec = ModelSpec.model_validate({"name": "m", "model": ModelSource(path="x"), **options})
    done = simulate(model, spec.simulate) if spec.simulate else {}
    return compression_manifest(model, byte_tokenizer(), spec, Path("x"), "x", done)


def test_a_dense_model_is_one_group() -> None:
    """16 bits for each parameter."""
    got = measured()
    assert [(g.storage, g.tensors, g.parameters, g.bits_per_weight) for g in got.groups] == [
        ("bfloat16", 21, ALL, 16.0)
    ]
    assert (got.parameters, got.bits_per_weight, got.weight_bytes) == (ALL, 16.0, 2 * ALL)
    assert (got.architecture, got.dtype) == ("LlamaForCausalLM", "bfloat16")
    assert got.groups[0].examples == [
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
    ]
    assert (got.claimed, got.disagreements) == ({}, [])


def test_tied_weights_are_counted_once() -> None:
    """The head is the embedding."""
    assert measured(tiny(tied=True)).parameters == ALL - HEAD


def test_simulated_int4_in_groups_of_32_is_4_5_bits() -> None:
    """4 + 16/32 over the linear weights, 16 over the rest."""
    got = measured(simulate={"weights": RECIPE})
    assert [(g.storage, g.tensors, g.parameters, g.bits_per_weight) for g in got.groups] == [
        ("int4 group 32 symmetric (simulated)", 14, LINEAR, 4.5),
        ("bfloat16", 7, ALL - LINEAR, 16.0),
    ]
    bits = 4.5 * LINEAR + 16 * (ALL - LINEAR)
    assert got.bits_per_weight == bits / ALL
    assert got.weight_bytes == bits / 8


def test_an_affine_channel_scheme_counts_its_zero_points() -> None:
    """8 + (16 + 8)/64 for a row of 64 columns."""
    weights = {"bits": 8, "granularity": "channel", "symmetric": False, "include": ["*.q_proj"]}
    got = {g.storage: g for g in measured(simulate={"weights": weights}).groups}
    assert got["int8 per channel affine (simulated)"].bits_per_weight == 8 + 24 / 64


def test_a_quantised_head_is_counted_beside_the_embedding_it_was_tied_to() -> None:
    """Untying costs a matrix, and the manifest shows it."""
    got = measured(tiny(tied=True), simulate={"weights": HEAD_TOO})
    assert got.parameters == ALL
    assert got.groups[0].parameters == LINEAR + HEAD


def test_values_on_a_grid_are_recognised() -> None:
    """A checkpoint that was quantised and unpacked again says so, at the bits it is stored in."""
    model = tiny()
    fake_quantize(
        model,
        ModelSpec.model_validate(
            {"name": "m", "model": {"path": "x"}, "simulate": {"weights": RECIPE}}
        ).simulate.weights,
    )  # type: ignore[union-attr]
    got = measured(model, manifest={"bits": 4, "group_size": 32})
    assert got.groups[0].storage == "bfloat16, values on a 4-bit grid per 32 columns"
    assert got.groups[0].bits_per_weight == 16.0
    assert got.disagreements == []


def test_exact_zeros_are_stated() -> None:
    """Half of each linear weight set to zero."""
    model = tiny()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data[:, ::2] = 0
    got = {g.storage: g.parameters for g in measured(model).groups}
    assert got == {"bfloat16 (50% exact zeros)": LINEAR + HEAD, "bfloat16": EMBEDDING + NORMS}


def test_half_a_percent_of_zeros_is_not() -> None:
    """From 1% on."""
    model = tiny()
    model.lm_head.weight.data[0, :] = 0  # 1 of 256 rows
    assert [g.storage for g in measured(model).groups] == ["bfloat16"]


@pytest.mark.parametrize(
    ("claim", "simulate", "expected"),
    [
        ({"bits": 4, "group_size": 32}, RECIPE, []),
        ({"bits": 4.5}, RECIPE, []),
        ({"tool": "x", "kernel": "y"}, None, []),
        (
            {"bits": 8},
            RECIPE,
            ["claims 8 bits, but the weights are int4 group 32 symmetric (simulated)"],
        ),
        (
            {"group_size": 128},
            RECIPE,
            ["claims groups of 128, but the weights are int4 group 32 symmetric (simulated)"],
        ),
        (
            {"bits": 4},
            None,
            ["claims 4 bits, but no tensor is compressed (all are bfloat16)"],
        ),
    ],
)
def test_claims_are_held_against_the_weights(
    claim: dict[str, Any], simulate: dict[str, Any] | None, expected: list[str]
) -> None:
    """A claim that the weights do not bear out is put in words."""
    options = {"simulate": {"weights": simulate}} if simulate else {}
    got = measured(manifest=claim, **options)
    assert got.disagreements == expected
    assert got.claimed == claim


def test_bitsandbytes_is_counted_with_its_block_scales() -> None:
    """nf4: 4 bits and a float32 absmax for 64 weights; nested: 8 bits instead, and a bit more."""
    bnb = pytest.importorskip("bitsandbytes")
    for nested, overhead in ((False, 32 / 64), (True, 8 / 64 + (32 * 32 + 32) / (64 * 8192))):
        layer = bnb.nn.Linear4bit(
            8192, 64, bias=False, quant_type="nf4", compress_statistics=nested
        )
        layer.weight = bnb.nn.Params4bit(
            torch.randn(64, 8192),
            requires_grad=False,
            quant_type="nf4",
            compress_statistics=nested,
            blocksize=64,
        )
        found = list(stored_tensors(nn.Sequential(layer.to("cpu")), {}))
        assert [(t.parameters, t.code_bits, t.group_size) for t in found] == [(64 * 8192, 4, 64)]
        assert found[0].bits / found[0].parameters == 4 + overhead
        assert found[0].kind == f"nf4 group 64{' nested' if nested else ''} (bitsandbytes)"


@pytest.mark.parametrize(
    ("config", "kind", "bits"),
    [
        # int8 rows of 64 with a float32 scale and an int8 zero point each
        (("Int8WeightOnlyConfig", {}), "int8 per channel (torchao Int8Tensor)", 8 + 40 / 64),
        (("Float8WeightOnlyConfig", {}), "float8_e4m3fn per channel (torchao Float8Tensor)", 8.5),
        # bfloat16 scale and int8 zero point for 32 columns; codes of 4 bits take a byte each
        (
            ("IntxWeightOnlyConfig", {"weight_dtype": torch.int4, "group_size": 32}),
            "int4 held in 8 bits group 32 (torchao IntxUnpackedToInt8Tensor)",
            8 + 24 / 32,
        ),
    ],
)
def test_torchao_tensors_are_counted_with_their_scales(
    config: tuple[str, dict[str, Any]], kind: str, bits: float
) -> None:
    """Whatever the subclass holds is counted."""
    torchao = pytest.importorskip("torchao.quantization")
    name, options = config
    if "group_size" in options:
        from torchao.quantization.granularity import PerGroup

        options = {"weight_dtype": torch.int4, "granularity": PerGroup(options["group_size"])}
    model = nn.Sequential(nn.Linear(64, 48, bias=False)).bfloat16()
    torchao.quantize_(model, getattr(torchao, name)(**options))
    found = list(stored_tensors(model, {}))
    assert [(t.kind, t.bits / t.parameters) for t in found] == [(kind, bits)]


def test_float8_weights_are_counted_as_eight_bits() -> None:
    """Few operations exist for them, not even counting zeros."""
    layer: Any = nn.Linear(4, 4, bias=False)
    layer.weight = nn.Parameter(torch.zeros(4, 4).to(torch.float8_e4m3fn), requires_grad=False)
    (found,) = stored_tensors(nn.Sequential(layer), {})
    assert (found.kind, found.bits, found.code_bits) == ("float8_e4m3fn", 128, 8)


def test_groups_come_largest_first() -> None:
    """The order does not depend on the order of the modules."""
    tensors = list(stored_tensors(tiny(), {}))
    assert group(tensors) == group(tensors[::-1]) or [g.storage for g in group(tensors)] == [
        g.storage for g in group(tensors[::-1])
    ]


def test_a_gguf_file_states_its_types(gguf_file: Path) -> None:
    """Embedding, head and 14 linear weights as Q8_0, five norms as F32."""
    assert file_types(gguf_tensors(gguf_file, "k")) == "GGUF: 16 Q8_0, 5 F32; 8.57 bits per weight"


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (8, []),
        (8.5, []),
        (4, ["claims 4 bits, but the weights are Q8_0"]),
    ],
)
def test_a_gguf_file_bears_out_a_claim_although_the_model_is_dense(
    gguf_file: Path, bits: float, expected: list[str]
) -> None:
    """8 bits in groups of 32 cannot be seen in the values; the file says so."""
    table = gguf_tensors(gguf_file, "k")
    assert disagreements(Claims(bits=bits), list(stored_tensors(tiny(), {})), table) == expected
