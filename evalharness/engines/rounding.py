"""Round-to-nearest onto narrow grids: integers, NF4, FP8 and MXFP4.

Integers, with q in [q_min, q_max]:

    symmetric  q_min = -2^(b-1), q_max = 2^(b-1) - 1, z = 0,  s = max|x| / q_max, or with
               ``scale: full`` s = max|x| / (q_max + 1/2), which is half of the range of codes, as
               compressed-tensors (`calculate_qparams`) and thus llm-compressor have it
    affine     q_min = 0, q_max = 2^b - 1,  s = (x_max - x_min) / (q_max - q_min),
               z = q_min - round(x_min / s),  with x_min <= 0 <= x_max so that 0 is exact
    both       x̂ = s · (clamp(round(x / s) + z, q_min, q_max) - z),  |x - x̂| <= s/2

after Nagel et al., "A White Paper on Neural Network Quantization" (arXiv 2106.08295), section 2.
Symmetric min-max scales to q_max on both sides, so the one code q_min is only reached by clipping
or by ``scale: full``; |error| <= s/2 everywhere, before the result is rounded to the weight's
dtype. Rounding is half to even. Scales are float32 while computing.

A scale belongs to a tensor, a channel (one output row), or a group of ``group_size`` consecutive
input columns of one row; the last group of a row may be shorter. ``clip: mse`` shrinks each range
by the factor in {1, 0.975 … 0.4} with the least squared error, so it is never worse than
minmax before the result is rounded to the dtype.

Other formats, x̂ = s · (the grid's value nearest to x / s), symmetric and min-max:

    nf4        16 values, quantiles of a normal distribution that end at -1 and 1; s = max|x|.
               Dettmers et al., "QLoRA" (arXiv 2305.14314), appendix E, as in bitsandbytes
    fp8_e4m3   4 bits of exponent, 3 of mantissa, without infinities; s = max|x| / 448
    fp8_e5m2   5 and 2; s = max|x| / 57344. Micikevicius et al., "FP8 Formats for Deep Learning"
               (arXiv 2209.05433)
    mxfp4      e2m1: 0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives, in groups of 32;
               s = 2^(floor(log2 max|x|) - 2), so that the largest may be clipped to 6 s.
               "OCP Microscaling Formats (MX) Specification" 1.0, section 6.3; Rouhani et al.
               (arXiv 2310.10537), algorithm 1

A float format with m bits of mantissa has the step 2^(max(floor(log2|x|), e_min) - m) at x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evalharness.spec.simulate import WeightQuantizer

SHRINK = tuple(1 - 0.025 * i for i in range(25))  # 1, 0.975 … 0.4
# fmt: off
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)
# fmt: on


@dataclass(frozen=True)
class FloatGrid:
    """A float format: bits of mantissa, least exponent of a normal number, largest value."""

    mantissa: int
    e_min: int
    largest: float


FLOATS = {
    "fp8_e4m3": FloatGrid(3, -6, 448.0),
    "fp8_e5m2": FloatGrid(2, -14, 57344.0),
    "mxfp4": FloatGrid(1, 0, 6.0),
}
_E2M1_TOP = 2  # exponent of 6 = 1.5 · 2^2


def quantize_weight(
    weight: Tensor, recipe: WeightQuantizer
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Quantise one weight matrix.

    Parameters
    ----------
    weight : (O, I) any floating dtype; rows are output channels.

    Returns
    -------
    dequantized : (O, I) float32.
    codes : (O, I) int16, in [q_min, q_max]; of other formats the grid's values, float32.
    scale, zero : (O, G) float32 and int16; G groups in a row (1 for channel; (1, 1) for tensor).

    """
    o, i = weight.shape
    x = weight.float()
    if recipe.granularity == "tensor":
        parts = [x.reshape(1, 1, o * i)]
    elif recipe.granularity == "channel":
        parts = [x.reshape(o, 1, i)]
    else:
        size = recipe.group_size or i
        whole = i // size * size
        parts = [x[:, :whole].reshape(o, -1, size)] if whole else []
        parts += [x[:, None, whole:]] if whole < i else []
    done = [_quantize_groups(p, recipe) for p in parts]
    hats = torch.cat([d[0].reshape(o, -1) for d in done], 1)
    codes = torch.cat([d[1].reshape(o, -1) for d in done], 1)
    scale = torch.cat([d[2] for d in done], 1)
    zero = torch.cat([d[3] for d in done], 1)
    return hats, codes, scale, zero


def nearest(x: Tensor, format: str) -> Tensor:
    """The value of the grid of ``format`` that is nearest to ``x``, float32."""
    if format == "nf4":
        table = torch.tensor(NF4, device=x.device)
        return table[torch.bucketize(x, (table[1:] + table[:-1]) / 2)]
    grid = FLOATS[format]
    exponent = torch.frexp(x).exponent - 1  # x = m · 2^e with 1/2 <= |m| < 1
    step = torch.ldexp(torch.ones_like(x), exponent.clamp(min=grid.e_min) - grid.mantissa)
    return (x / step).round_().mul_(step).clamp_(-grid.largest, grid.largest)


def _scale_of(largest: Tensor, format: str) -> Tensor:
    """The scale for each max|x|; 1 for zeros."""
    if format == "mxfp4":
        exponent = (torch.frexp(largest).exponent - 1 - _E2M1_TOP).clamp(-127, 127)
        scale = torch.ldexp(torch.ones_like(largest), exponent)
    else:
        scale = largest if format == "nf4" else largest / FLOATS[format].largest
    return torch.where(largest > 0, torch.where(scale > 0, scale, 1.0), 1.0)


def _quantize_groups(x: Tensor, recipe: WeightQuantizer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Quantise ``x`` (O, G, K): one scale for each (o, g)."""
    low, high = x.amin(-1), x.amax(-1)
    if recipe.format != "int":
        scale = _scale_of(torch.maximum(-low, high), recipe.format)
        values = nearest(x / scale[..., None], recipe.format)
        return values * scale[..., None], values, scale, torch.zeros_like(scale, dtype=torch.int16)
    if recipe.clip == "mse":
        shrink = _least_squares(x, low, high, recipe)
        low, high = low * shrink, high * shrink
    q_min, q_max, scale, zero = _parameters(low, high, recipe)
    s, z = scale[..., None], zero[..., None]
    codes = (x / s).round_().add_(z).clamp_(q_min, q_max)
    hat = (codes - z).mul_(s)
    return hat, codes.to(torch.int16), scale, zero.to(torch.int16)


def _least_squares(x: Tensor, low: Tensor, high: Tensor, recipe: WeightQuantizer) -> Tensor:
    """The factor of `SHRINK` with the least squared error, for each group (O, G)."""
    best = torch.ones_like(low)
    least = torch.full_like(low, torch.inf)
    for shrink in SHRINK:
        q_min, q_max, scale, zero = _parameters(low * shrink, high * shrink, recipe)
        s, z = scale[..., None], zero[..., None]
        hat = (x / s).round_().clamp_(q_min - z, q_max - z).mul_(s)
        error = hat.sub_(x).square_().sum(-1)
        better = error < least
        least = torch.where(better, error, least)
        best = torch.where(better, shrink, best)
    return best


def _parameters(
    low: Tensor, high: Tensor, recipe: WeightQuantizer
) -> tuple[int, int, Tensor, Tensor]:
    """q_min, q_max, scale and zero point (O, G) of the ranges ``low`` … ``high``."""
    if recipe.symmetric:
        q_min, q_max = -(1 << recipe.bits - 1), (1 << recipe.bits - 1) - 1
        scale = torch.maximum(-low, high) / (q_max + (0.5 if recipe.scale == "full" else 0))
    else:
        q_min, q_max = 0, (1 << recipe.bits) - 1
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = (high - low) / (q_max - q_min)
    # A group of zeros, or one so small that its scale underflows: every code is the zero point.
    scale = torch.where(scale > 0, scale, 1.0)
    zero = torch.zeros_like(scale) if recipe.symmetric else q_min - (low / scale).round()
    return q_min, q_max, scale, zero
