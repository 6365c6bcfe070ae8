"""The worst channels: where along the width of a module's output the error lies.

One token in EVERY of a block's first batch is looked at: which channel holds the most squared error
is a matter of sums over hundreds of tokens, and reading every activation a second time, or starting
half a dozen more kernels a module and batch, is not worth it.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from evalharness.records import CHANNELS

EVERY = 16
TOP = 8  # channels of a module kept in the records


class ChannelSums:
    """Σ Δ² by channel of each module and kind of error, over a sample of the tokens."""

    def __init__(self, device: torch.device) -> None:
        # The sums are float64, which mps lacks.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._tokens: dict[tuple[str, str], int] = {}
        self._rows: tuple[Tensor, Tensor, Tensor] | None = None

    def add(
        self, error: str, name: str, ref: Tensor, cand: Tensor, slots_BT: Tensor, at_BT: Tensor
    ) -> None:
        """Take in one module's outputs, one row a token."""
        rows = self._sample(slots_BT, at_BT)
        if not len(rows):
            return
        a, b = (t.reshape(-1, t.shape[-1])[rows.to(t.device)] for t in (ref, cand))
        # The norm of the columns: one kernel, summed in float32 whatever the outputs are.
        delta = b.to(self.device) - a.to(self.device)
        norm = torch.linalg.vector_norm(delta, dim=0, dtype=torch.float32)
        square = norm.double().square()
        key = (error, name)
        before = self._sums.get(key)
        self._sums[key] = square if before is None else before + square
        self._tokens[key] = self._tokens.get(key, 0) + len(rows)

    def _sample(self, slots_BT: Tensor, at_BT: Tensor) -> Tensor:
        """Every EVERY-th row that counts; worked out once for all the modules of a batch."""
        if self._rows is None or self._rows[0] is not slots_BT or self._rows[1] is not at_BT:
            keep = (slots_BT.reshape(-1) >= 0) & (at_BT.reshape(-1) > 0)
            self._rows = (slots_BT, at_BT, keep.nonzero()[:, 0][::EVERY])
        return self._rows[2]

    def table(self) -> pa.Table:
        """Rows of `records.CHANNELS`: the TOP channels of each module; the sums start anew."""
        rows: list[dict[str, Any]] = []
        for (error, name), sums in self._sums.items():
            values, channels = sums.topk(min(TOP, len(sums)))
            whole = float(sums.sum())
            rows += [
                {"layer": name, "error": error, "tokens": self._tokens[error, name],
                 "channel": c, "err_sq": v, "all_err_sq": whole}
                for c, v in zip(channels.tolist(), values.tolist(), strict=True)
            ]  # fmt: skip
        self._sums, self._tokens = {}, {}
        return pa.Table.from_pylist(rows, schema=CHANNELS)
