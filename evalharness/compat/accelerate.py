"""What we ask of accelerate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evalharness.compat.silence import quiet

if TYPE_CHECKING:
    import torch


def copy_block_by_block(model: Any, device: torch.device) -> None:
    """Run ``model`` on ``device`` while its weights stay in main memory.

    From here on its parameters are on the ``meta`` device between calls: what reads a weight has
    to do without, and inputs are moved by the modules themselves.
    """
    from accelerate import cpu_offload

    with quiet():
        cpu_offload(model, device)
