"""The fake quantiser against textbook values, a loop in float64, and its own error bound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from evalharness.engines.rounding import quantize_weight
from evalharness.engines.simulate import Quantized, fake_quantize, select
from evalharness.errors import InputError
from evalharness.spec.simulate import WeightQuantizer
from tests.engines.conftest import tiny


def recipe(bits: int = 4, granularity: str = "group", **options: Any) -> WeightQuantizer:
    if granularity == "group":
        options.setdefault("group_size", 32)
    return WeightQuantizer.model_validate({"bits": bits, "granularity": granularity, **options})


def loop(weight: np.ndarray, how: WeightQuantizer) -> np.ndarray:
    """Min-max quantisation of (O, I), one element at a time in float64."""
    rows, columns = weight.shape
    out = np.empty((rows, columns))
    size = {"tensor": columns, "channel": columns, "group": how.group_size}[how.granularity]
    for o in range(rows):
        for start in range(0, columns, size):
            part = weight if how.granularity == "tensor" else weight[o, start : start + size]
            low, high = float(part.min()), float(part.max())
            if how.symmetric:
                q_min, q_max, z = -(2 ** (how.bits - 1)), 2 ** (how.bits - 1) - 1, 0
                s = max(abs(low), abs(high)) / q_max
            else:
                q_min, q_max = 0, 2**how.bits - 1
                low, high = min(low, 0.0), max(high, 0.0)
                s = (high - low) / (q_max - q_min)
                z = q_min - round(low / s) if s else 0
            for i in range(start, min(start + size, columns)):
                q = round(float(weight[o, i]) / s) + z if s else z
                out[o, i] = (min(max(q, q_min), q_max) - z) * s
    return out


# Hand-computed, 3 bits. Symmetric: q_max = 3, s = 6/3 = 2, q = round-half-even(x/2).
# Affine: q_max = 7, range −1 … 6, s = 1, z = 1.
@pytest.mark.parametrize(
    ("symmetric", "x", "hat", "scale", "zero"),
    [
        (True, [-6.0, -5.0, -1.0, 0.0, 2.9, 6.0], [-6, -4, 0, 0, 2, 6], 2.0, 0),
        (False, [-1.0, -0.4, 0.0, 0.6, 2.4, 6.0], [-1, 0, 0, 1, 2, 6], 1.0, 1),
        (False, [1.0, 2.0, 3.0, 3.4, 3.6, 7.0], [1, 2, 3, 3, 4, 7], 1.0, 0),
        (False, [-7.0, -6.6, -3.4, -3.0, -2.0, -1.0], [-7, -7, -3, -3, -2, -1], 1.0, 7),
    ],
)
def test_a_hand_computed_row(
    symmetric: bool, x: list[float], hat: list[int], scale: float, zero: int
) -> None:
    """Scale, zero point and values are the textbook's."""
    got, codes, s, z = quantize_weight(torch.tensor([x]), recipe(3, "channel", symmetric=symmetric))
    assert got.tolist() == [hat]
    assert (s.item(), z.item()) == (scale, zero)
    assert codes.tolist() == [[h / scale + zero for h in hat]]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_every_scheme_agrees_with_a_loop_in_float64(
    bits: int, symmetric: bool, granularity: str
) -> None:
    """37 columns in groups of 8: the last group has 5."""
    how = recipe(
        bits,
        granularity,
        symmetric=symmetric,
        **({"group_size": 8} if granularity == "group" else {}),
    )
    weight = np.random.default_rng(bits).normal(size=(5, 37)).astype(np.float32)
    hat, _, scale, _ = quantize_weight(torch.from_numpy(weight), how)
    np.testing.assert_allclose(hat.numpy(), loop(weight, how), rtol=0, atol=1e-5)
    assert scale.shape == {"tensor": (1, 1), "channel": (5, 1), "group": (5, 5)}[granularity]


@settings(max_examples=150, deadline=None)
@given(
    x=st.lists(
        st.floats(-1e6, 1e6, width=32).map(lambda v: 0.0 if abs(v) < 1e-30 else v),
        min_size=1,
        max_size=40,
    ),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
)
def test_the_error_is_at_most_half_a_step(x: list[float], bits: int, symmetric: bool) -> None:
    """|x − x̂| ≤ s/2 without clipping; zero stays zero; at most 2^b codes, all in range."""
    weight = torch.tensor([[*x, 0.0]])
    hat, codes, scale, zero = quantize_weight(
        weight, recipe(bits, "group", group_size=8, symmetric=symmetric)
    )
    step = scale.repeat_interleave(8, 1)[:, : weight.shape[1]]
    slack = 1e-5 * step + 1e-6 * weight.abs()
    assert bool(((hat - weight).abs() <= step / 2 + slack).all())
    assert bool((hat[weight == 0] == 0).all())
    low = -(2 ** (bits - 1)) if symmetric else 0
    assert bool((codes >= low).all() and (codes < low + 2**bits).all())
    assert bool((zero >= low).all() and (zero < low + 2**bits).all())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_symmetric_grid_has_at_most_two_to_the_b_values(bits: int) -> None:
    """Symmetric min-max leaves out the lowest code: 2^b − 1 values."""
    weight = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    hat, *_ = quantize_weight(weight, recipe(bits, "channel"))
    assert hat.unique().numel() == 2**bits - 1
    hat, *_ = quantize_weight(weight, recipe(bits, "channel", symmetric=False))
    assert hat.unique().numel() == 2**bits


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_mse_clipping_is_never_worse_than_minmax(symmetric: bool, granularity: str) -> None:
    """Group by group; and with an outlier it is better."""
    weight = torch.randn(16, 100, generator=torch.Generator().manual_seed(1))
    weight[:, 3] = 8.0
    errors = {}
    for clip in ("minmax", "mse"):
        how = recipe(3, granularity, symmetric=symmetric, clip=clip)
        errors[clip] = (quantize_weight(weight, how)[0] - weight).square()
    groups = {"tensor": [100], "channel": [100], "group": [32, 32, 32, 4]}[granularity]
    best, plain = (
        torch.stack([e.sum(1) for e in errors[clip].split(groups, 1)], 1)
        for clip in ("mse", "minmax")
    )
    if granularity == "tensor":
        best, plain = best.sum(), plain.sum()
    assert bool((best <= plain * (1 + 1e-6)).all())
    assert best.sum() < plain.sum()


@pytest.mark.parametrize("symmetric", [True, False])
def test_constant_and_zero_groups_are_kept(symmetric: bool) -> None:
    """A group of zeros has no range; a constant one is the end of its own."""
    weight = torch.tensor([[0.0, 0.0, 3.0, 3.0, -2.0, -2.0, 1e-45, 0.0]])
    hat, *_ = quantize_weight(weight, recipe(4, group_size=2, symmetric=symmetric))
    torch.testing.assert_close(
        hat, torch.tensor([[0.0, 0, 3, 3, -2, -2, 0, 0]]), rtol=1e-6, atol=1e-44
    )


def test_quantising_twice_changes_nothing() -> None:
    """In float32 the grid of a quantised matrix is its own grid."""
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(2))
    once, *_ = quantize_weight(weight, recipe(4))
    twice, *_ = quantize_weight(once, recipe(4))
    torch.testing.assert_close(twice, once, rtol=1e-6, atol=1e-7)


def test_a_model_is_quantised_in_place() -> None:
    """Every linear weight is its own quantisation, in its own dtype; nothing else moves."""
    model = tiny()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    how = recipe(4, exclude=("lm_head",))
    done = fake_quantize(model, how)
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)} - {"lm_head"}
    assert set(done) == linear
    for name, value in model.state_dict().items():
        expected = before[name]
        if name.removesuffix(".weight") in linear:
            expected = quantize_weight(expected, how)[0].to(torch.bfloat16)
            assert not torch.equal(expected, before[name])
        assert torch.equal(value, expected), name
        assert value.dtype is torch.bfloat16


def test_large_matrices_are_quantised_in_pieces_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of rows taken at a time changes nothing."""
    monkeypatch.setattr("evalharness.engines.simulate._CHUNK", 200)
    for how in (recipe(4), recipe(3, "channel"), recipe(5, "tensor")):
        model = nn.Sequential(nn.Linear(64, 48, bias=False)).requires_grad_(False)
        expected = quantize_weight(model[0].weight.clone(), how)[0]
        done = fake_quantize(model, how)
        assert torch.equal(model[0].weight, expected)
        assert done["0"].scales == {"group": 96, "channel": 48, "tensor": 1}[how.granularity]


def test_the_overhead_is_counted_by_hand() -> None:
    """4 bits, groups of 32: 16/32 more for the scale, 4/32 more for a zero point."""
    assert Quantized(4, True, "group", 32, "minmax", 3200, 100).total_bits / 3200 == 4.5
    assert Quantized(4, False, "group", 32, "minmax", 3200, 100).total_bits / 3200 == 4.625
    done = fake_quantize(tiny(), recipe(4, group_size=48, include=("*.q_proj",)))
    # 64 columns in groups of 48: two scales in each of 64 rows.
    assert done["model.layers.0.self_attn.q_proj"].overhead_bits == 64 * 2 * 16


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "int4 group 32 symmetric (simulated)"),
        ({"symmetric": False, "granularity": "channel"}, "int4 per channel affine (simulated)"),
        ({"granularity": "tensor", "bits": 8}, "int8 per tensor symmetric (simulated)"),
    ],
)
def test_what_was_done_reads_as_words(options: dict[str, Any], text: str) -> None:
    """The manifest's storage column."""
    done = fake_quantize(tiny(), recipe(**options))
    assert {str(d) for d in done.values()} == {text}


def test_include_and_exclude_are_globs_of_module_names() -> None:
    """Included and not excluded."""
    names = set(select(tiny(), recipe(include=("*.layers.1.*",), exclude=("*.mlp.*",))))
    assert names == {f"model.layers.1.self_attn.{p}_proj" for p in "qkvo"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"exclude": ("lm_haed",)},
            "simulate.weights.exclude[0]: 'lm_haed' matches no linear module. "
            "Did you mean 'lm_head'?",
        ),
        (
            {"include": ("*.q_prj",)},
            "simulate.weights.include[0]: '*.q_prj' matches no linear module. "
            "Did you mean 'q_proj'",
        ),
        (
            {"include": ("#",)},
            "simulate.weights.include[0]: '#' matches no linear module. Linear modules are such "
            "as model.layers.0.self_attn.q_proj, ",
        ),
        (
            {"exclude": ("*",)},
            "simulate.weights: include and exclude leave no linear module to quantise",
        ),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    """A typo must not give an unquantised candidate."""
    with pytest.raises(InputError) as caught:
        fake_quantize(tiny(), recipe(**options))
    assert str(caught.value).startswith(message)


def test_a_tied_head_is_untied_before_it_is_quantised(tmp_path: Any) -> None:
    """The embedding stays; the model can be saved and loaded again as it is."""
    model = tiny(tied=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    before = model.lm_head.weight.clone()
    fake_quantize(model, recipe(2, include=("*", "lm_head")))
    assert torch.equal(model.model.embed_tokens.weight, before)
    assert torch.equal(model.lm_head.weight, quantize_weight(before, recipe(2))[0].bfloat16())
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert torch.equal(again.model.embed_tokens.weight, before)


@pytest.mark.parametrize("options", [{}, {"exclude": ("lm_head",)}])
def test_a_tied_head_that_nothing_names_stays_tied(options: dict[str, Any]) -> None:
    """Untying it would make the model larger than it was; one of its own is quantised."""
    model = tiny(tied=True)
    assert "lm_head" not in fake_quantize(model, recipe(2, **options))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert "lm_head" in fake_quantize(tiny(), recipe(2))


def test_a_full_scale_takes_half_of_the_range_of_codes() -> None:
    """4 bits: max / 7.5, so that −7.5 becomes the code −8 and 7.5 is clipped to 7."""
    how = recipe(4, "channel", scale="full")
    hat, codes, scale, _ = quantize_weight(torch.tensor([[-7.5, -3.2, 0.4, 6.6, 7.5]]), how)
    assert scale.item() == 1.0
    assert codes.tolist() == [[-8, -3, 0, 7, 7]]
    assert hat.tolist() == [[-8.0, -3.0, 0.0, 7.0, 7.0]]


def test_a_full_scale_is_that_of_compressed_tensors() -> None:
    """The published implementation, on random rows."""
    quantization = pytest.importorskip("compressed_tensors.quantization")
    from compressed_tensors.quantization.utils import calculate_qparams

    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    args = quantization.QuantizationArgs(num_bits=4, symmetric=True, strategy="channel")
    expected, _ = calculate_qparams(weight.amin(1), weight.amax(1), args)
    _, _, scale, _ = quantize_weight(weight, recipe(4, "channel", scale="full"))
    torch.testing.assert_close(scale[:, 0], expected)


def test_a_full_scale_of_an_affine_scheme_is_refused() -> None:
    """It has no such choice."""
    with pytest.raises(ValueError, match="scale: full is of symmetric schemes"):
        recipe(4, symmetric=False, scale="full")


def test_conv1d_is_quantised_along_its_inputs() -> None:
    """GPT-2 stores weights as (I, O); groups still run over input columns."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64))
    before = model.transformer.h[0].mlp.c_fc.weight.detach().clone()  # (32, 128)
    how = recipe(3, group_size=8, include=("*.c_fc",))
    done = fake_quantize(model, how)
    after = model.transformer.h[0].mlp.c_fc.weight
    np.testing.assert_allclose(
        after.detach().numpy(), loop(before.T.numpy(), how).T, rtol=0, atol=1e-6
    )
    assert done["transformer.h.0.mlp.c_fc"].scales == 128 * 4


def test_weights_that_are_not_finite_are_refused() -> None:
    """A NaN would spread over its group in silence."""
    model = tiny()
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = math.nan
    with pytest.raises(InputError, match=r"weight of model.layers.1.mlp.up_proj holds NaN"):
        fake_quantize(model, recipe())
