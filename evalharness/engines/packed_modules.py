"""Modules that hold their weights as codes: GPTQ, AWQ, AutoRound, compressed-tensors, FP8.

What such a module holds is read from its tensors, and from its scheme where they do not say: how
many weights the codes stand for, how many columns share a scale, whether there are zero points.
Everything in the module but its bias is counted with the codes. A scheme that contradicts the
tensors, or codes whose weights cannot be counted, are `Unknown`: then bits are not measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evalharness.compat import quantizers

# Names of the codes: GPTQ, AWQ and AutoRound; compressed-tensors; and those with scales beside.
_CODES = ("qweight", "weight_packed", "weight")
_BESIDE = frozenset(
    f"{what}_{part}"
    for what in ("weight", "input", "output", "activation", "q", "k", "v")
    for part in ("scale", "scales", "zero_point", "global_scale", "g_idx", "shape")
)
_SIZES = (("in_features", "out_features"), ("infeatures", "outfeatures"))
_BITS = ("bits", "w_bit", "num_bits")
# A code may take a little more room than its bits: 3-bit codes, ten of them in 32 bits.
_MOST_PADDING = 1.35
_NARROW = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Packed:
    """The weights of one module."""

    codes: str  # name of the tensor with the codes
    kind: str  # in words
    weights: int
    code_bits: float
    group_size: int | None
    decompressed: bool  # the first forward pass replaces the codes by dense weights


@dataclass(frozen=True)
class Unknown:
    """Codes that cannot be counted, and why."""

    codes: str
    reason: str


def packed(module: nn.Module, held: Mapping[str, Tensor]) -> Packed | Unknown | None:
    """What ``module`` packs in its tensors ``held``; None: its weights are held otherwise."""
    name = next((n for n in _CODES if n in held), None)
    if name is None or not _are_codes(name, held):
        return None
    codes = held[name]
    scheme = quantizers.compressed_weights(module)
    declared = scheme.bits if scheme else _declared_bits(module)
    shape = _shape(module, held, codes, declared)
    if shape is None:
        return Unknown(name, f"{type(module).__name__} does not say how many weights it packs")
    weights = math.prod(shape)
    room = 8 * codes.numel() * codes.element_size() / max(weights, 1)
    bits = declared or room
    if not bits <= room <= bits * _MOST_PADDING:
        return Unknown(
            name,
            f"{type(module).__name__} says {declared} bits, and its codes take {room:.3g} bits "
            "a weight",
        )
    scale = _scale(held)
    group = _group(shape, scale, transposed=name == "qweight", declared=_declared_group(module))
    span = _span(shape, scale, group, _declared_block(module))
    kind = f"{_number(codes, bits, scale, scheme)} {span}"
    kind += _symmetry(held, codes)
    by = "compressed-tensors" if scheme else type(module).__name__
    return Packed(
        name, f"{kind} ({by})", weights, room, group, quantizers.decompresses_later(module)
    )


def belongs(name: str) -> bool:
    """Whether a tensor of this name in a module holds scales and the like, and no weights."""
    return name in _BESIDE or name.endswith("_scale_inv")


def _are_codes(name: str, held: Mapping[str, Tensor]) -> bool:
    """Whether ``weight`` holds codes: it is narrow, and has scales beside it."""
    codes = held[name]
    if type(codes.data) is not Tensor:
        return False
    if name != "weight":
        return True
    narrow = codes.dtype in _NARROW or (codes.is_floating_point() and codes.element_size() == 1)
    return narrow and _scale(held) is not None


def _declared_bits(module: nn.Module) -> int | None:
    found = (getattr(module, n, None) for n in _BITS)
    return next((n for n in found if type(n) is int and n > 0), None)


def _declared_group(module: nn.Module) -> int | None:
    scheme = quantizers.compressed_weights(module)
    size = scheme.group_size if scheme else getattr(module, "group_size", None)
    return size if type(size) is int and size > 0 else None


def _shape(
    module: nn.Module, held: Mapping[str, Tensor], codes: Tensor, bits: int | None
) -> tuple[int, int] | None:
    """Outputs and inputs of the dense weight."""
    stated = held.get("weight_shape")
    if stated is not None and stated.numel() == 2 and stated.device.type != "meta":
        rows, columns = stated.tolist()
        return int(rows), int(columns)
    for names in _SIZES:
        size = [getattr(module, n, None) for n in names]
        if all(type(n) is int for n in size):
            return int(size[1] or 0), int(size[0] or 0)
    if codes.dim() == 2 and bits:
        rows, columns = codes.shape
        return rows, columns * 8 * codes.element_size() // bits
    return None


def _scale(held: Mapping[str, Tensor]) -> Tensor | None:
    """The scales of the weights, of which there may be further ones for the whole tensor."""
    for name in ("scales", "weight_scale", "weight_scale_inv", "weight_scales"):
        if name in held:
            return held[name]
    return None


def _group(
    shape: tuple[int, int], scale: Tensor | None, *, transposed: bool, declared: int | None
) -> int | None:
    """Columns that share a scale; None: a whole row, a block or the tensor."""
    if scale is None or scale.dim() != 2:
        return None
    rows, groups = scale.shape[::-1] if transposed else scale.shape
    if rows != shape[0] or groups <= 1:
        return None
    if declared and -(-shape[1] // declared) == groups:
        return declared
    return int(-(-shape[1] // groups))


def _declared_block(module: nn.Module) -> tuple[int, int] | None:
    """Rows and columns that share a scale, as DeepSeek's FP8 has them; the last may be smaller."""
    scheme = getattr(getattr(module, "quantization_scheme", None), "weights", None)
    found = getattr(scheme, "block_structure", None) or getattr(module, "block_size", None)
    whole = isinstance(found, list | tuple) and len(found) == 2
    return (int(found[0]), int(found[1])) if found and whole else None


def _span(
    shape: tuple[int, int], scale: Tensor | None, group: int | None, block: tuple[int, int] | None
) -> str:
    if group is not None:
        return f"group {group}"
    if scale is None:
        return "packed"
    if scale.numel() == 1 and block is None:
        return "per tensor"
    if scale.numel() == shape[0]:
        return "per channel"
    if scale.dim() == 2:
        rows, columns = block or (-(-n // k) for n, k in zip(shape, scale.shape, strict=True))
        return f"blocks of {rows} × {columns}"
    return "packed"


def _number(
    codes: Tensor, bits: float, scale: Tensor | None, scheme: quantizers.Arguments | None
) -> str:
    if codes.is_floating_point():
        return str(codes.dtype).removeprefix("torch.")
    if scheme and scheme.type == "float":
        micro = scale is not None and scale.dtype is torch.uint8
        eight = scale is not None and scale.dtype is torch.float8_e4m3fn
        return f"{'mx' if micro else 'nv' if eight else ''}fp{bits:g}"
    return f"int{bits:g}"


def _symmetry(held: Mapping[str, Tensor], codes: Tensor) -> str:
    """Whether there are zero points that differ; GPTQ writes them for symmetric weights as well."""
    if codes.is_floating_point() or codes.dtype is torch.uint8:
        return ""
    zeros: Any = held.get("qzeros", held.get("weight_zero_point"))
    if zeros is None or zeros.device.type == "meta" or not zeros.numel():
        return " symmetric"
    return " symmetric" if bool((zeros == zeros.reshape(-1)[0]).all()) else " affine"
