"""Round-to-nearest fake quantisation of weights: what would this model be at b bits?

Each weight is quantised to an integer and straight back, in float32, then stored in its own dtype,
so that any model can be judged at any width without a kernel for it. With q in [q_min, q_max]:

    symmetric  q_min = -2^(b-1), q_max = 2^(b-1) - 1, z = 0,  s = max|x| / q_max, or with
               ``scale: full`` s = max|x| / (q_max + 1/2), which is half of the range of codes, as
               compressed-tensors (`calculate_qparams`) and thus llm-compressor have it
    affine     q_min = 0, q_max = 2^b - 1,  s = (x_max - x_min) / (q_max - q_min),
               z = q_min - round(x_min / s),  with x_min <= 0 <= x_max so that 0 is exact
    both       x̂ = s · (clamp(round(x / s) + z, q_min, q_max) - z),  |x - x̂| <= s/2

after Nagel et al., "A White Paper on Neural Network Quantization" (arXiv 2106.08295), section 2.
Symmetric min-max scales to q_max on both sides, so the one code q_min is only reached by clipping
or by ``scale: full``; |error| <= s/2 everywhere, before the result is rounded to the weight's
dtype. Rounding is half to even. Scales are float32 while computing; the manifest counts 16 bits for
each scale and b bits for each zero point.

A scale belongs to a tensor, a channel (one output row), or a group of ``group_size`` consecutive
input columns of one row; the last group of a row may be shorter. ``clip: mse`` shrinks each range
by the factor in {1, 0.975 … 0.4} with the least squared error, so it is never worse than
minmax before the result is rounded to the dtype.

Every linear module is quantised unless ``exclude`` names it, and so are fused experts, matrix by
matrix; embeddings never are. A head that is tied to the embedding is left alone, unless ``include``
names it by more than ``*``: it is then untied first, and the model holds one matrix more. Only
tensors change: shapes, dtypes and module names stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evalharness.compat.transformers import is_conv1d, is_expert_list
from evalharness.engines.shared_weights import give_own_weights, owners_of_weights
from evalharness.errors import InputError, nearest
from evalharness.spec.model import WeightQuantizer

SCALE_BITS = 16
SHRINK = tuple(1 - 0.025 * i for i in range(25))  # 1, 0.975 … 0.4
_EXPERT_AXES = 3  # experts, outputs, inputs
_CHUNK = 1 << 20  # weights quantised at a time: what fits in cache is much faster


@dataclass(frozen=True)
class Quantized:
    """What was done to one module's weight."""

    bits: int
    symmetric: bool
    granularity: Literal["tensor", "channel", "group"]
    group_size: int | None
    clip: Literal["minmax", "mse"]
    weights: int
    scales: int
    full_range: bool = False  # of a symmetric scheme: `scale: full`

    @property
    def overhead_bits(self) -> int:
        """Bits of the scales, and of the zero points of an affine scheme."""
        return self.scales * (SCALE_BITS + (0 if self.symmetric else self.bits))

    @property
    def total_bits(self) -> int:
        """Bits of the codes and of the overhead."""
        return self.weights * self.bits + self.overhead_bits

    def __str__(self) -> str:
        group = f"group {self.group_size}" if self.group_size else f"per {self.granularity}"
        kind = "symmetric" if self.symmetric else "affine"
        kind += ", full range" if self.full_range else ""
        return f"int{self.bits} {group} {kind} (simulated)"


@torch.no_grad()
def fake_quantize(model: nn.Module, recipe: WeightQuantizer) -> dict[str, Quantized]:
    """Quantise the linear weights of ``model`` in place.

    Returns
    -------
    dict : module name → what was done, in the order of ``model.named_modules()``; of fused experts
        the name of the parameter.

    Raises
    ------
    InputError : a pattern of include or exclude matches no linear module, or nothing is left;
        weights are quantised already, or not finite.

    """
    chosen = select(model, recipe)
    give_own_weights(model, {n: m for n, m in chosen.items() if _is_linear(m)}, each=False)
    done: dict[int, Quantized] = {}  # two chosen modules may share one weight
    result = {}
    for name, module in chosen.items():
        weight: Any = getattr(module, "weight" if _is_linear(module) else name.rpartition(".")[2])
        if id(weight) not in done:
            transposed = is_conv1d(module) or bool(getattr(module, "is_transposed", False))
            done[id(weight)] = _quantize(name, weight, recipe, transposed=transposed)
        result[name] = done[id(weight)]
    return result


def select(model: nn.Module, recipe: WeightQuantizer) -> dict[str, nn.Module]:
    """Linear modules, and parameters of fused experts, that ``include`` and not ``exclude`` names.

    A pattern that names a module of experts names all its parameters.
    """
    linear: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if _is_linear(module):
            linear[name] = module
        elif is_expert_list(name) and not isinstance(module, nn.ModuleList):
            held = module.named_parameters(name, recurse=False)
            linear |= {n: module for n, value in held if value.dim() == _EXPERT_AXES}
    for key in ("include", "exclude"):
        for index, pattern in enumerate(getattr(recipe, key)):
            if not any(_names(pattern, name, linear[name]) for name in linear):
                hint = nearest(pattern, linear) or nearest(pattern.strip("*."), _tails(linear))
                raise InputError(
                    f"{pattern!r} matches no linear module",
                    key=f"simulate.weights.{key}[{index}]",
                    remedy=hint[:1].upper() + hint[1:]
                    if hint
                    else f"Linear modules are such as {', '.join(list(linear)[:3])}.",
                )
    chosen = {
        name: module
        for name, module in linear.items()
        if any(_names(p, name, module) for p in recipe.include)
        and not any(_names(p, name, module) for p in recipe.exclude)
    }
    named = [p for p in recipe.include if p != "*"]
    for name in _tied_to_embedding(model, chosen):
        if not any(fnmatchcase(name, p) for p in named):
            del chosen[name]
    if not chosen:
        raise InputError(
            "include and exclude leave no linear module to quantise", key="simulate.weights"
        )
    return chosen


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_conv1d(module)


def _names(pattern: str, name: str, module: nn.Module) -> bool:
    """Whether ``pattern`` names this weight, or the module of experts that it belongs to."""
    whole = not _is_linear(module) and fnmatchcase(name.rpartition(".")[0], pattern)
    return whole or fnmatchcase(name, pattern)


def _tied_to_embedding(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of the modules ``names`` whose weight an embedding holds as well."""
    embeddings = {n for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    shared = [held for held in owners_of_weights(model).values() if held & embeddings]
    return [name for name in names if any(name in held for held in shared)]


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
    codes : (O, I) int16, in [q_min, q_max].
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


def _quantize_groups(x: Tensor, recipe: WeightQuantizer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Quantise ``x`` (O, G, K): one scale for each (o, g)."""
    low, high = x.amin(-1), x.amax(-1)
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


def _quantize(name: str, weight: Tensor, recipe: WeightQuantizer, *, transposed: bool) -> Quantized:
    """Quantise one weight in place; of fused experts (E, O, I) each expert's matrix on its own."""
    if not weight.is_floating_point() or type(weight.data) is not Tensor:
        raise InputError(
            f"{name} is quantised already ({type(weight.data).__name__}, {weight.dtype})",
            key="simulate",
            remedy="Simulate on a model in float32, bfloat16 or float16.",
        )
    if not bool(weight.isfinite().all()):
        raise InputError(f"the weight of {name} holds NaN or infinity", key="simulate")
    scales = 0
    for held in weight.data if weight.dim() == _EXPERT_AXES else (weight.data,):
        matrix = held.T if transposed else held  # (O, I)
        rows = len(matrix) if recipe.granularity == "tensor" else max(1, _CHUNK // matrix.shape[1])
        for start in range(0, len(matrix), rows):
            block = matrix[start : start + rows]
            hat, _, scale, _ = quantize_weight(block, recipe)
            block.copy_(hat)
            scales += scale.numel()
    return Quantized(
        recipe.bits,
        recipe.symmetric,
        recipe.granularity,
        recipe.group_size,
        recipe.clip,
        weight.numel(),
        scales,
        recipe.scale == "full",
    )


def _tails(names: dict[str, nn.Module]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})
