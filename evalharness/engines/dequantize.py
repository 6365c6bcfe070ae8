"""The weight of a linear module as a dense matrix, however it is stored.

plain, simulated, GGUF (unpacked when it was loaded)   itself
bitsandbytes nf4, fp4, int8                            its own; int8: codes · SCB / 127
torchao and other tensor subclasses                    their ``dequantize()``
PEFT, unmerged                                         the base's, plus the active adapters' ΔW
anything else (GPTQ, AWQ, compressed-tensors, fp8)     what the module makes of the unit vectors
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evalharness.compat import peft, quantizers
from evalharness.compat.transformers import is_conv1d

_PLAIN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_UNIT_ROWS = 512  # unit vectors sent through a module at a time


@torch.no_grad()
def dense_weight(module: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """``module``'s weight (outputs O, inputs I) in a floating dtype, on the module's device.

    A plain weight comes as a view. ``dtype``: what the module computes in, where only its effect on
    vectors tells its weight.
    """
    base = peft.adapted(module)
    if base is not None:
        return peft.with_adapters(module, dense_weight(base, dtype))
    weight: Any = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        if quantizers.four_bit(weight) is not None:
            return quantizers.dequantized_four_bit(weight)
        if quantizers.is_int8(module, weight):
            return _int8(weight, module)
        if type(weight.data) is not Tensor and hasattr(weight.data, "dequantize"):
            dense: Tensor = weight.data.dequantize()
            return dense
        if type(weight.data) is Tensor and weight.dtype in _PLAIN:
            return weight.data.T if is_conv1d(module) else weight.data
    return _by_effect(module, dtype)


def _int8(weight: Tensor, module: nn.Module) -> Tensor:
    scales = quantizers.int8_scales(module, weight)
    if scales is None:
        return _by_effect(module, torch.float16)
    return weight.data.float() * (scales.to(weight.device).float()[:, None] / 127)


def _by_effect(module: nn.Module, dtype: torch.dtype) -> Tensor:
    """Outputs for every unit vector, less the output for the zero vector."""
    size = getattr(module, "in_features", None)
    if not isinstance(size, int):
        raise TypeError(f"{type(module).__name__} does not say how wide its input is")
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    bias = module(torch.zeros(1, size, device=device, dtype=dtype))
    columns = []
    for start in range(0, size, _UNIT_ROWS):
        unit = torch.zeros(min(_UNIT_ROWS, size - start), size, device=device, dtype=dtype)
        unit[:, start:].fill_diagonal_(1)
        columns.append((module(unit) - bias).float())
    return torch.cat(columns).T
