"""Private and version-fragile parts of bitsandbytes and torchao: how they hold a weight.

Nothing of either library is imported to look at a weight: a model without quantised weights needs
neither.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


# --- bitsandbytes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class FourBit:
    """A weight in blocks of 4-bit codes, two codes in a byte."""

    type: str  # nf4 or fp4
    block: int  # weights that share a scale
    shape: tuple[int, ...]
    scales: tuple[Tensor, ...]  # of the blocks; where they are nested, of the blocks of scales too


def four_bit(weight: Any) -> FourBit | None:
    """How bitsandbytes' ``Linear4bit`` holds ``weight``; None for any other weight."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        return None
    nested = () if state.state2 is None else (state.state2.absmax,)
    return FourBit(
        str(state.quant_type), int(state.blocksize), tuple(state.shape), (state.absmax, *nested)
    )


def dequantized_four_bit(weight: Any) -> Tensor:
    """The dense matrix (O, I) that bitsandbytes computes with."""
    from bitsandbytes import functional

    dense: Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
    return dense


def is_int8(module: nn.Module, weight: Tensor) -> bool:
    """Whether ``weight`` holds the int8 codes of bitsandbytes' ``Linear8bitLt``."""
    import torch

    return type(module).__name__ == "Linear8bitLt" and weight.dtype is torch.int8


def int8_scales(module: nn.Module, weight: Tensor) -> Tensor | None:
    """Largest absolute value of each row (O,): a weight is code · scale / 127. None: not there.

    The first forward pass moves them from the weight to the module's state.
    """
    scales = getattr(weight, "SCB", None)
    if scales is None:
        scales = getattr(getattr(module, "state", None), "SCB", None)
    return scales


# --- compressed-tensors ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Arguments:
    """How compressed-tensors quantises weights or activations."""

    bits: int
    type: str  # int or float
    symmetric: bool
    strategy: str  # tensor, channel, group, block, token …
    group_size: int | None
    dynamic: bool


def compressed_weights(module: nn.Module) -> Arguments | None:
    """The scheme of a module's weights; None: it is no module of compressed-tensors."""
    return _arguments(getattr(getattr(module, "quantization_scheme", None), "weights", None))


def compressed_inputs(module: nn.Module) -> Arguments | None:
    """The scheme of what a module is given (of an attention: of its keys and values)."""
    scheme = getattr(module, "quantization_scheme", None)
    return _arguments(getattr(scheme, "input_activations", None))


def decompresses_later(module: nn.Module) -> bool:
    """Whether compressed-tensors replaces a module's codes by dense weights in its first call."""
    status = getattr(module, "quantization_status", None)
    return str(getattr(status, "value", status)) == "compressed"


def _arguments(found: Any) -> Arguments | None:
    bits = getattr(found, "num_bits", None)
    if not isinstance(bits, int):
        return None
    size = getattr(found, "group_size", None)
    strategy, kind = getattr(found, "strategy", ""), getattr(found, "type", "int")
    return Arguments(
        bits,
        str(getattr(kind, "value", kind)),
        bool(getattr(found, "symmetric", True)),
        str(getattr(strategy, "value", strategy)),
        size if isinstance(size, int) and size > 0 else None,
        bool(getattr(found, "dynamic", False)),
    )


def are_packed_zero_points(names: list[str]) -> bool:
    """Whether tensors of these names are the zero points of asymmetric compressed-tensors."""
    return bool(names) and all(name.endswith("weight_zero_point") for name in names)


# --- torchao --------------------------------------------------------------------------------------


def code_dtype(weight: Any) -> torch.dtype | None:
    """What a torchao tensor's codes stand for, where they are held in a wider dtype."""
    found: torch.dtype | None = getattr(weight, "target_dtype", None)
    return found


def columns_of_a_scale(weight: Any) -> int | None:
    """Columns of a torchao tensor that share a scale; None: it does not say."""
    block = getattr(weight, "block_size", None)
    return int(block[-1]) if block is not None and len(block) else None


def torchao_inputs(weight: Any) -> str | None:
    """How a torchao tensor has the inputs of its module quantised; None: it leaves them alone."""
    kind = getattr(weight, "activation_quantization", None)
    if isinstance(kind, str):  # int8_asym_per_token
        words = kind.replace("_asym", " affine").replace("_sym", " symmetric")
        return f"{words.replace('_', ' ')}, dynamic"
    options = getattr(weight, "act_quant_kwargs", None)
    if options is None:
        return None
    number = "float8" if "Float8" in type(options).__name__ else "int8"
    span = type(getattr(options, "granularity", None)).__name__
    words = {"PerRow": "per token", "PerTensor": "per tensor"}.get(span, f"by {span}")
    static = getattr(weight, "act_quant_scale", None) is not None
    return f"{number} {words}, {'static' if static else 'dynamic'}"


def torchao_schemes() -> dict[str, type]:
    """torchao's configuration classes by their names without ``Config``."""
    from torchao import quantization

    return {
        name.removesuffix("Config"): value
        for name, value in vars(quantization).items()
        if name.endswith("Config") and inspect.isclass(value)
    }


def per_group(size: int) -> Any:
    """torchao's word for groups of ``size`` columns."""
    from torchao.quantization import granularity

    return granularity.PerGroup(size)


def option_names(configuration: Any) -> list[str]:
    """The options that a class of configurations takes.

    ``BitsAndBytesConfig`` logs and drops one that it does not know.
    """
    taken = inspect.signature(configuration.__init__).parameters
    return [name for name in taken if name not in ("self", "kwargs")]
