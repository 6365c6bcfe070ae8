"""How each tensor of a loaded model is stored, and how many bits that takes.

Counted: every parameter and every buffer that is saved; scales, zero points and the like with the
codes they belong to, and buffers that are no weights as bits without parameters. Not counted:
buffers that are not saved, such as rotary frequencies, and tables that are the same for every
tensor of a scheme (the 16 values of nf4, the 256 of its nested scales). A tied tensor is counted
once. Simulated weights count as what they stand for.

Three sizes are told apart: `bits`, which a tensor stands for; `held`, what it takes now, whose sum
`miscounted` compares with the state dict; and `resident`, what it takes once the model has run,
since compressed-tensors replaces codes by dense weights in the first forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from evalharness.compat import quantizers
from evalharness.compat.transformers import is_conv1d, is_expert_list
from evalharness.engines.fingerprint import plain_tensors
from evalharness.engines.packed_modules import Packed, Unknown, belongs, packed
from evalharness.engines.quantization_grid import effective_bits
from evalharness.engines.recipe import Made

_SPARSE = 0.01  # share of exact zeros that is worth saying
_OFF = 1e-3  # relative; tables of a scheme are in the state dict and not counted
_TABLES = ("quant_map", "weight_format")


@dataclass(frozen=True)
class StoredTensor:
    """One tensor: ``kind`` in words, what it holds, and the bits it takes."""

    name: str
    kind: str
    parameters: int
    bits: int
    code_bits: float | None = None  # None: not quantised
    group_size: int | None = None  # weights of a row that share a scale; None: whole row or tensor
    zeros: int | None = None  # exact ones; None: its values are packed
    in_pattern: int = 0  # weights in runs of four columns of which two or more are zero
    on_grid: bool = False  # stored wide, its values on a narrow grid
    held: int | None = None  # bits that it takes now; None: as many as ``bits``
    resident: int | None = None  # bits once the model has run; None: as many as ``held``
    linear: bool = False  # of a linear module or of fused experts
    unknown: str = ""  # why its bits and parameters are not known

    @property
    def held_bits(self) -> int:
        """Bits that it takes now."""
        return self.bits if self.held is None else self.held

    @property
    def resident_bits(self) -> int:
        """Bits that it takes once the model has run."""
        return self.held_bits if self.resident is None else self.resident


def stored_tensors(model: nn.Module, simulated: Mapping[str, Made]) -> Iterator[StoredTensor]:
    """Yield every weight of ``model`` once, in the order of its modules, and its buffers."""
    seen: set[tuple[str, int]] = set()
    for prefix, module in model.named_modules():
        held, saved = _tensors(module)
        found = packed(module, held)
        linear = is_linear(prefix, module) and not _is_head(model, module)
        if found is not None:
            yield _packed(prefix, found, held, saved, _width(model))
        for name, value in held.items():
            if found is not None and name != "bias":
                continue  # codes and scales, counted as one
            at = (str(value.device), _address(value))
            if at in seen and value.numel():
                continue
            seen.add(at)
            full = f"{prefix}.{name}" if prefix else name
            if belongs(name) or not (found or isinstance(value, nn.Parameter)):
                if name in saved:
                    yield _other(full, value, linear)
                continue
            done = simulated.get(full) or (simulated.get(prefix) if name == "weight" else None)
            one = _simulated(full, value, done) if done else _measured(full, value, module)
            axes = 3 if is_expert_list(prefix) else 2
            if linear and value.dim() >= axes and _is_plain(value):
                transposed = is_conv1d(module) or bool(getattr(module, "is_transposed", False))
                zeros, in_pattern = _zeros(value, transposed=transposed)
                one = replace(one, zeros=zeros, in_pattern=in_pattern)
            yield replace(one, linear=linear and value.dim() >= axes)


def miscounted(model: nn.Module, tensors: Sequence[StoredTensor]) -> str:
    """Why bits and parameters are not known, in words; empty: every tensor was counted."""
    unknown = [t for t in tensors if t.unknown]
    if unknown:
        return f"{unknown[0].name}: {unknown[0].unknown}"
    counted = sum(t.held_bits for t in tensors)
    saved = saved_bits(model)
    if abs(counted - saved) <= _OFF * max(counted, saved):
        return ""
    return (
        f"the tensors that were counted take {counted // 8:,} bytes, and the state dict of "
        f"{type(model).__name__} {saved // 8:,}"
    )


def saved_bits(model: nn.Module) -> int:
    """Bits of the state dict, tied tensors once and tables of a scheme left out."""
    seen: set[tuple[str, int, int]] = set()
    total = 0
    for name, value in model.state_dict().items():
        if name.endswith(_TABLES) or ".quant_state." in name:
            continue
        for _, part in plain_tensors(name, value):
            at = (str(part.device), part.data_ptr() or id(part), part.numel())
            if at not in seen:
                seen.add(at)
                total += _bits(part)
    return total


def is_linear(name: str, module: nn.Module) -> bool:
    """Whether ``module`` multiplies by matrices of its own: linear, in any storage, or experts."""
    if isinstance(module, nn.Embedding):
        return False
    fused = is_expert_list(name) and not isinstance(module, nn.ModuleList)
    sizes = (("in_features", "out_features"), ("infeatures", "outfeatures"))
    return fused or is_conv1d(module) or any(all(hasattr(module, n) for n in s) for s in sizes)


def _is_head(model: nn.Module, module: nn.Module) -> bool:
    get_head = getattr(model, "get_output_embeddings", None)
    return callable(get_head) and get_head() is module


def _width(model: nn.Module) -> int:
    """Bits of a number in the dtype that ``model`` computes in."""
    dtype = getattr(model, "dtype", torch.float32)
    return 8 * torch.empty((), dtype=dtype).element_size()


def _tensors(module: nn.Module) -> tuple[dict[str, Tensor], set[str]]:
    """The parameters and buffers of ``module`` itself, and the names of those that are saved."""
    parameters = dict(module.named_parameters(recurse=False))
    buffers = dict(module.named_buffers(recurse=False))
    left_out = module._non_persistent_buffers_set
    held = parameters | buffers
    return held, held.keys() - left_out


def _other(name: str, value: Tensor, linear: bool) -> StoredTensor:
    """A buffer, or scales: bits without weights; codes of a linear module are not told by it."""
    integers = not value.is_floating_point() and value.dtype is not torch.bool
    codes = linear and integers and value.dim() > 1 and not belongs(name.rpartition(".")[2])
    return StoredTensor(
        name,
        f"{_dtype(value.dtype)}, no weights",
        0,
        _bits(value),
        unknown="integers whose weights are not known" if codes else "",
    )


def _is_plain(value: Tensor) -> bool:
    return value.is_floating_point() and not hasattr(value, "__tensor_flatten__")


def _zeros(value: Tensor, *, transposed: bool) -> tuple[int, int]:
    """Exact zeros of a weight, and weights in runs of four inputs that are 2:4 sparse."""
    zeros = in_pattern = 0
    for matrix in value.detach().reshape(-1, *value.shape[-2:]):  # experts one at a time
        empty = (matrix.T if transposed else matrix) == 0
        zeros += int(empty.sum())
        whole = empty.shape[1] // 4 * 4
        runs = empty[:, :whole].reshape(len(empty), -1, 4).sum(-1)
        in_pattern += 4 * int((runs >= 2).sum())
    return zeros, in_pattern


def _address(value: Tensor) -> int:
    inner = next((t for _, t in plain_tensors("", value)), value)
    return inner.data_ptr() or id(value)


def _simulated(name: str, value: Tensor, done: Made) -> StoredTensor:
    return StoredTensor(
        name,
        str(done),
        value.numel(),
        done.total_bits,
        done.bits,
        done.group_size,
        held=_bits(value),
    )


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
    if not value.is_floating_point():
        return replace(plain, unknown="integers whose weights are not known")
    if value.element_size() == 1:
        return replace(plain, code_bits=8)  # float8, for which little is implemented
    if value.dim() < 2:
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


def _packed(
    prefix: str,
    found: Packed | Unknown,
    held: dict[str, Tensor],
    saved: set[str],
    width: int,
) -> StoredTensor:
    """A module's codes with all that belongs to them, as one tensor."""
    name = f"{prefix}.{found.codes}" if prefix else found.codes
    own = {n: _bits(t) for n, t in held.items() if n != "bias"}
    bits = sum(size for n, size in own.items() if n in saved)
    if isinstance(found, Unknown):
        return StoredTensor(
            name, "codes of unknown form", 0, bits, linear=True, unknown=found.reason
        )
    resident = sum(own.values())
    if found.decompressed:  # and the scales of narrow dtypes become the model's with them
        scales = held.get("weight_scale")
        wide = max(0, scales.numel() * width - _bits(scales)) if scales is not None else 0
        resident += found.weights * width - own[found.codes] + wide
    return StoredTensor(
        name,
        found.kind,
        found.weights,
        bits,
        found.code_bits,
        found.group_size,
        resident=resident,
        linear=True,
    )


def _bits(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size() * 8


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
