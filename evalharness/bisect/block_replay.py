"""A side that is run again and again on the same batches, only from the block that has changed.

Every block's output is kept, batch by batch, for one state of the model. A later pass is told which
block is the first that differs from that state: the blocks before it hand back what they gave then,
and everything else runs as ever, so that any architecture works and hooks fire on every block.
Whether that changes no bit is tried at the start (a block may write into its input, or hand on more
than its output); where it does, or where the outputs would not fit in memory, every pass is whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from evalharness.bisect.swap import replaced, returning
from evalharness.compat.transformers import hidden_size
from evalharness.data.windows import Window
from evalharness.engines.device_memory import free_bytes
from evalharness.pair.matching import decoder_blocks
from evalharness.pair.side import Side

SHARE = 0.25  # of the free memory that kept outputs may take

_Key = tuple[Any, ...]


class Replayed(Side):
    """One side with its blocks' outputs kept; behaves as the side itself."""

    def __init__(self, side: Side, windows: Sequence[Window]) -> None:
        self.__dict__.update(side.__dict__)
        self.blocks = list(decoder_blocks(side.model).items())
        self._first = 0
        self._kept: dict[_Key, list[Any]] = {}  # of the state that passes are held against
        self._last: dict[_Key, list[Any]] = {}  # of the pass that is running, or was the last
        self.usable = bool(self.blocks) and _fits(self, windows) and self._exact(windows[0])

    def begin(self, changed: Sequence[str] | None) -> None:
        """Start a pass with these modules changed since `keep`; None: nothing is known."""
        self._last = {}
        self._first = 0
        if self._kept and changed is not None:
            self._first = min((self._block(n) for n in changed), default=len(self.blocks))

    def keep(self) -> None:
        """Hold later passes over these batches against what has run since `begin`."""
        self._kept = {**self._kept, **self._last}

    def hidden(self, ids_BT: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """As `Side.hidden`."""
        if not self.usable:
            return super().hidden(ids_BT)
        key = (tuple(ids_BT.shape), ids_BT.cpu().numpy().tobytes())
        found, outs = self._run(ids_BT, self._kept.get(key, [])[: self._first])
        self._last[key] = outs
        return found

    @torch.inference_mode()
    def _exact(self, window: Window) -> bool:
        """Whether leaving out the first half of the blocks changes nothing."""
        ids = self.ids([window])
        found, outs = self._run(ids, [])
        half = self._run(ids, outs[: len(self.blocks) // 2])[0]
        same: bool = torch.equal(half, found)
        return same and len(outs) == len(self.blocks)

    def _run(self, ids_BT: Tensor, known: list[Any]) -> tuple[Tensor, list[Any]]:
        outs: list[Any] = []
        skipped = [(m, returning(out)) for (_, m), out in zip(self.blocks, known, strict=False)]
        handles = [
            m.register_forward_hook(lambda module, args, out: outs.append(out))
            for _, m in self.blocks
        ]
        try:
            with replaced(skipped):
                return super().hidden(ids_BT), outs
        finally:
            for handle in handles:
                handle.remove()

    def _block(self, name: str) -> int:
        """The block that a module is in; before all of them: 0, after: their number."""
        for i, (block, _) in enumerate(self.blocks):
            if name.startswith(block + "."):
                return i
        return len(self.blocks) if name == self.head_name else 0


def _fits(side: Side, windows: Sequence[Window]) -> bool:
    """Whether two states' outputs, and as much of the other side, fit beside everything else."""
    width, element = hidden_size(side.model), side.model.dtype.itemsize
    free = free_bytes(side.device)
    if width is None or free is None:
        return False
    tokens = sum(len(s.ids) for s in windows)
    blocks = len(decoder_blocks(side.model))
    return bool(3 * tokens * blocks * width * element < SHARE * free)
