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


def compressed_group(module: nn.Module) -> int | None:
    """Columns that share a scale in a module of compressed-tensors; None: a row, or another one."""
    weights = getattr(getattr(module, "quantization_scheme", None), "weights", None)
    size = getattr(weights, "group_size", None)
    return size if isinstance(size, int) and size > 0 else None


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
