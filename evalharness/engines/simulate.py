"""Fake quantisation of weights, in place: what would this model be at b bits?

Each weight is put on a narrow grid and straight back, in float32, then stored in its own dtype, so
that any model can be judged at any width without a kernel for it; `engines.rounding` has the grids.
The manifest counts 16 bits for each scale (8 for MXFP4's powers of two) and b bits for each zero
point.

Every linear module is quantised unless ``exclude`` names it, and so are fused experts, matrix by
matrix; embeddings never are. A head that is tied to the embedding is left alone, unless ``include``
names it by more than ``*``: it is then untied first, and the model holds one matrix more. Only
tensors change: shapes, dtypes and module names stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor, nn

from evalharness.compat.transformers import is_conv1d, is_expert_list
from evalharness.engines.rounding import quantize_weight
from evalharness.engines.shared_weights import give_own_weights, owners_of_weights
from evalharness.errors import InputError, nearest
from evalharness.spec.simulate import Format, Selection, WeightQuantizer

SCALE_BITS = 16
_POWER_BITS = 8  # of a scale that is a power of two (E8M0)
_WORK = {"simulate.weights": "quantise", "simulate.pruning": "prune"}
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
    format: Format = "int"

    @property
    def overhead_bits(self) -> int:
        """Bits of the scales, and of the zero points of an affine scheme."""
        scale = _POWER_BITS if self.format == "mxfp4" else SCALE_BITS
        return self.scales * (scale + (0 if self.symmetric else self.bits))

    @property
    def total_bits(self) -> int:
        """Bits of the codes and of the overhead."""
        return self.weights * self.bits + self.overhead_bits

    def __str__(self) -> str:
        group = f"group {self.group_size}" if self.group_size else f"per {self.granularity}"
        if self.format != "int":
            return f"{self.format} {group} (simulated)"
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
    give_own_weights(model, {n: m for n, m in chosen.items() if is_plain_linear(m)}, each=False)
    done: dict[int, Quantized] = {}  # two chosen modules may share one weight
    result = {}
    for name, module in chosen.items():
        weight = weight_of(name, module)
        if id(weight) not in done:
            done[id(weight)] = _quantize(name, module, recipe)
        result[name] = done[id(weight)]
    return result


def select(
    model: nn.Module, recipe: Selection, at: str = "simulate.weights"
) -> dict[str, nn.Module]:
    """Linear modules, and parameters of fused experts, that ``include`` and not ``exclude`` names.

    A pattern that names a module of experts names all its parameters. ``at``: the recipe's key.
    """
    linear: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if is_plain_linear(module):
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
                    key=f"{at}.{key}[{index}]",
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
        raise InputError(f"include and exclude leave no linear module to {_WORK[at]}", key=at)
    return chosen


def is_plain_linear(module: nn.Module) -> bool:
    """Whether it is a linear module with a weight of its own, and no fused experts."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def _names(pattern: str, name: str, module: nn.Module) -> bool:
    """Whether ``pattern`` names this weight, or the module of experts that it belongs to."""
    whole = not is_plain_linear(module) and fnmatchcase(name.rpartition(".")[0], pattern)
    return whole or fnmatchcase(name, pattern)


def _tied_to_embedding(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of the modules ``names`` whose weight an embedding holds as well."""
    embeddings = {n for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    shared = [held for held in owners_of_weights(model).values() if held & embeddings]
    return [name for name in names if any(name in held for held in shared)]


def weight_of(name: str, module: nn.Module) -> Tensor:
    """The weight that `select` named."""
    weight: Tensor = getattr(
        module, "weight" if is_plain_linear(module) else name.rpartition(".")[2]
    )
    return weight


def matrices(name: str, module: nn.Module) -> list[Tensor]:
    """Views (O, I) of the weight that `select` named; of fused experts one for each expert.

    Raises
    ------
    InputError : it is quantised already, or not finite.

    """
    weight = weight_of(name, module)
    if not weight.is_floating_point() or type(weight.data) is not Tensor:
        raise InputError(
            f"{name} is quantised already ({type(weight.data).__name__}, {weight.dtype})",
            key="simulate",
            remedy="Simulate on a model in float32, bfloat16 or float16.",
        )
    if not bool(weight.isfinite().all()):
        raise InputError(f"the weight of {name} holds NaN or infinity", key="simulate")
    held = list(weight.data) if weight.dim() == _EXPERT_AXES else [weight.data]
    inputs_first = is_conv1d(module) or bool(getattr(module, "is_transposed", False))
    return [m.T for m in held] if inputs_first else held


def _quantize(name: str, module: nn.Module, recipe: WeightQuantizer) -> Quantized:
    """Quantise one weight in place; of fused experts (E, O, I) each expert's matrix on its own."""
    scales = 0
    for matrix in matrices(name, module):
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
        weight_of(name, module).numel(),
        scales,
        recipe.scale == "full",
        recipe.format,
    )


def _tails(names: dict[str, nn.Module]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})
