"""How each tensor of a loaded model is stored, and how many bits that takes.

Counted: codes, scales, zero points, biases. Not counted: tables that are the same for every tensor
of a scheme (the 16 values of nf4, the 256 of its nested scales), activations, buffers that are no
weights. A tied tensor is counted once. Simulated weights count as what they stand for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from evalharness.compat import quantizers
from evalharness.compat.transformers import is_conv1d
from evalharness.engines.fingerprint import plain_tensors
from evalharness.engines.quantization_grid import effective_bits
from evalharness.engines.simulate import Quantized

_SPARSE = 0.01  # share of exact zeros that is worth saying
_PACKED = ("qweight", "weight_packed")  # GPTQ and AWQ; compressed-tensors


@dataclass(frozen=True)
class StoredTensor:
    """One tensor: ``kind`` in words, what it holds, and the bits it takes."""

    name: str
    kind: str
    parameters: int
    bits: int
    code_bits: float | None = None  # None: not quantised
    group_size: int | None = None  # weights of a row that share a scale; None: whole row or tensor
    zeros: int = 0
    on_grid: bool = False  # stored wide, its values on a narrow grid


def stored_tensors(model: nn.Module, simulated: dict[str, Quantized]) -> Iterator[StoredTensor]:
    """Yield every weight of ``model`` once, in the order of its modules."""
    seen: set[tuple[str, int]] = set()
    for prefix, module in model.named_modules():
        packed = _packed(prefix, module)
        if packed is not None:
            yield packed
        for name, value in module.named_parameters(prefix, recurse=False):
            if packed is not None and not name.endswith("bias"):
                continue  # codes and scales, counted as one
            at = (str(value.device), _address(value))
            if at in seen and value.numel():
                continue
            seen.add(at)
            if prefix in simulated and name.endswith("weight"):
                yield _simulated(name, value, simulated[prefix])
            else:
                yield _measured(name, value, module)


def _address(value: Tensor) -> int:
    inner = next((t for _, t in plain_tensors("", value)), value)
    return inner.data_ptr() or id(value)


def _simulated(name: str, value: Tensor, done: Quantized) -> StoredTensor:
    return StoredTensor(name, str(done), value.numel(), done.total_bits, done.bits, done.group_size)


def _measured(name: str, value: Tensor, module: nn.Module) -> StoredTensor:
    four_bit = quantizers.four_bit(value)
    if four_bit is not None:
        return _bnb_4bit(name, value, four_bit)
    if quantizers.is_int8(module, value):
        return _bnb_int8(name, value, module)
    if hasattr(value, "__tensor_flatten__"):
        return _subclass(name, value)
    bits = value.numel() * value.element_size() * 8
    plain = StoredTensor(name, _dtype(value.dtype), value.numel(), bits)
    if value.is_floating_point() and value.element_size() == 1:
        return replace(plain, code_bits=8)  # float8, for which little is implemented
    if value.dim() < 2 or not value.is_floating_point():
        return plain
    grid = effective_bits(value, transposed=is_conv1d(module))
    if grid is not None:
        kind = f"{plain.kind}, values on a {grid.bits}-bit grid per {grid.span}"
        return replace(plain, kind=kind, code_bits=grid.bits, on_grid=True)
    zeros = value.numel() - int(torch.count_nonzero(value))
    if zeros > _SPARSE * value.numel():
        return replace(plain, kind=f"{plain.kind} with zeros", zeros=zeros)
    return plain


def _bnb_4bit(name: str, value: Tensor, held: quantizers.FourBit) -> StoredTensor:
    """bitsandbytes Linear4bit: two codes in a byte, one scale for each block."""
    bits = _bits(value) + sum(map(_bits, held.scales))
    nested = len(held.scales) > 1
    if nested:
        bits += 32  # the offset
    kind = f"{held.type} group {held.block}{' nested' if nested else ''} (bitsandbytes)"
    return StoredTensor(name, kind, math.prod(held.shape), bits, 4, held.block)


def _bnb_int8(name: str, value: Tensor, module: nn.Module) -> StoredTensor:
    """bitsandbytes Linear8bitLt: int8 rows with a float32 scale each."""
    scales = quantizers.int8_scales(module, value)
    overhead = value.shape[0] * 32 if scales is None else _bits(scales)
    kind = "int8 per channel symmetric (bitsandbytes)"
    return StoredTensor(name, kind, value.numel(), _bits(value) + overhead, 8)


def _subclass(name: str, value: Tensor) -> StoredTensor:
    """A torchao tensor: its largest part holds the codes, the rest is overhead."""
    parts = [t for _, t in plain_tensors(name, value)]
    codes = max(parts, key=_bits)
    held = _bits(codes) / value.numel()
    dtype = _dtype(quantizers.code_dtype(value) or codes.dtype)
    columns = quantizers.columns_of_a_scale(value)
    group = columns if columns and columns < value.shape[-1] else None
    share = f"group {group}" if group else "per channel" if columns else "packed"
    digits = "".join(c for c in dtype.partition("_")[0] if c.isdigit())
    code_bits = min(float(digits), held) if digits else held
    if code_bits < held:
        dtype += f" held in {held:g} bits"
    elif not group and held < 8 and dtype.endswith("8"):
        dtype = f"{held:g} bits"
    kind = f"{dtype} {share} (torchao {type(value).__name__})"
    return StoredTensor(name, kind, value.numel(), sum(map(_bits, parts)), code_bits, group)


def _packed(prefix: str, module: nn.Module) -> StoredTensor | None:
    """A module that holds its weights packed in integers: GPTQ, AWQ, compressed-tensors."""
    buffers = dict(module.named_buffers(recurse=False))
    buffers |= {n: p for n, p in module.named_parameters(recurse=False) if n != "bias"}
    found = next((n for n in _PACKED if n in buffers), None)
    size = [getattr(module, n, None) for n in ("in_features", "out_features")]
    if found is None or not all(isinstance(n, int) for n in size):
        return None
    count = math.prod(n for n in size if isinstance(n, int))
    code_bits = _bits(buffers[found]) / count
    group = getattr(module, "group_size", None) or quantizers.compressed_group(module)
    group = group if isinstance(group, int) and group > 0 else None
    share = f"group {group}" if group else "per channel"
    kind = f"{code_bits:g} bits {share} ({type(module).__name__})"
    return StoredTensor(
        f"{prefix}.{found}", kind, count, sum(map(_bits, buffers.values())), code_bits, group
    )


def _bits(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size() * 8


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
