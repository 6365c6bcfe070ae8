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

_PLAIN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_UNIT_ROWS = 512  # unit vectors sent through a module at a time


@torch.no_grad()
def dense_weight(module: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """``module``'s weight (outputs O, inputs I) in a floating dtype, on the module's device.

    A plain weight comes as a view. ``dtype``: what the module computes in, where only its effect on
    vectors tells its weight.
    """
    base = getattr(module, "base_layer", None)
    if isinstance(base, nn.Module):
        return _with_adapters(module, dense_weight(base, dtype))
    weight: Any = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        if getattr(weight, "quant_state", None) is not None:
            return _bnb_4bit(weight)
        if type(module).__name__ == "Linear8bitLt" and weight.dtype is torch.int8:
            return _bnb_int8(weight, module)
        if type(weight.data) is not Tensor and hasattr(weight.data, "dequantize"):
            dense: Tensor = weight.data.dequantize()
            return dense
        if type(weight.data) is Tensor and weight.dtype in _PLAIN:
            return weight.data.T if type(module).__name__ == "Conv1D" else weight.data
    return _by_effect(module, dtype)


def _bnb_4bit(weight: Any) -> Tensor:
    from bitsandbytes import functional

    dense: Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
    return dense


def _bnb_int8(weight: Any, module: nn.Module) -> Tensor:
    scale = getattr(weight, "SCB", None)
    if scale is None:
        scale = getattr(getattr(module, "state", None), "SCB", None)
    if scale is None:
        return _by_effect(module, torch.float16)
    dense: Tensor = weight.data.float() * (scale.to(weight.device).float()[:, None] / 127)
    return dense


def _with_adapters(module: Any, base: Tensor) -> Tensor:
    """The base's weight and what its unmerged adapters add."""
    if getattr(module, "merged", False):
        return base
    dense = base.float()
    for name in getattr(module, "active_adapters", ()):
        if name in getattr(module, "lora_A", ()):
            dense = dense + module.get_delta_weight(name).to(dense.device, dense.dtype)
    return dense


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
