"""What goes wrong in a forward pass: which module it began in, and whether memory ran out."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import Tensor, nn

from evalharness.errors import RunError
from evalharness.pair.side import Side


class OutOfMemoryError(RunError):
    """A batch does not fit, however small."""


def free_memory(device: torch.device) -> None:
    """Give what nobody refers to back to the device."""
    gc.collect()
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


class _FoundError(Exception):
    """Ends a forward pass at the module that was looked for."""


def looked_into(side: Side) -> bool:
    """Whether there are modules of ``side`` to look for a fault in."""
    return not side.released and not side.streams


@torch.inference_mode()
def first_nonfinite(side: Side, ids: Any) -> str | None:
    """The first module whose output holds NaN or Inf on a window's ids; None: none does."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple | list) else (output,)
            for value in outputs:
                if isinstance(value, Tensor) and value.is_floating_point():
                    if not bool(value.isfinite().all()):
                        found.append(name)
                        raise _FoundError
                    return

        return hook

    handles = [
        m.register_forward_hook(watch(name)) for name, m in side.model.named_modules() if name
    ]
    try:
        side.model(input_ids=torch.as_tensor(ids, device=side.device)[None], use_cache=False)
    except _FoundError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
