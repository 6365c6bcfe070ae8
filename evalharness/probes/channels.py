"""The worst channels: where along the width of a module's output the error lies.

One token in EVERY of a block's first batch is looked at: which channel holds the most squared error
is a matter of sums over hundreds of tokens, and reading every activation a second time, or starting
half a dozen more kernels a module and batch, is not worth it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from evalharness.probes.sums import has_triton
from evalharness.records import CHANNELS

EVERY = 16
TOP = 8  # channels of a module kept in the records
PARTS = 8  # that a kernel sums apart, so that many programs run at a time


class ChannelSums:
    """Σ Δ² by channel of each module and kind of error, over a sample of the tokens."""

    def __init__(self, device: torch.device) -> None:
        # The sums are float64, which mps lacks.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self._sums: dict[tuple[str, str], Tensor] = {}  # (parts, C)
        self._tokens: dict[tuple[str, str], int] = defaultdict(int)
        self._rows: tuple[Tensor, Tensor, Tensor] | None = None

    def add(
        self, error: str, name: str, ref: Tensor, cand: Tensor, slots_BT: Tensor, at_BT: Tensor
    ) -> None:
        """Take in one module's outputs, one row a token."""
        rows_K = self._sample(slots_BT, at_BT)
        if not len(rows_K):
            return
        a, b = (t.reshape(-1, t.shape[-1]).to(self.device) for t in (ref, cand))
        key, kernel = (error, name), a.is_cuda and has_triton()
        if key not in self._sums:
            shape = (PARTS if kernel else 1, a.shape[1])
            dtype = torch.float32 if kernel else torch.float64
            self._sums[key] = torch.zeros(shape, dtype=dtype, device=self.device)
        if kernel:
            from evalharness.probes.sums_triton import triton_channels

            triton_channels(a, b, rows_K, self._sums[key])
        else:
            delta = b[rows_K].float() - a[rows_K].float()
            self._sums[key] += delta.square().sum(0, dtype=torch.float64)
        self._tokens[key] += len(rows_K)

    def _sample(self, slots_BT: Tensor, at_BT: Tensor) -> Tensor:
        """Every EVERY-th row that counts; worked out once for all the modules of a batch."""
        if self._rows is None or self._rows[0] is not slots_BT or self._rows[1] is not at_BT:
            keep = (slots_BT.reshape(-1) >= 0) & (at_BT.reshape(-1) > 0)
            rows_K = keep.nonzero()[:, 0][::EVERY].contiguous().to(self.device)
            self._rows = (slots_BT, at_BT, rows_K)
        return self._rows[2]

    def table(self) -> pa.Table:
        """Rows of `records.CHANNELS`: the TOP channels of each module; the sums start anew."""
        by_width: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for key, sums in self._sums.items():
            by_width[sums.shape[1]].append(key)
        found: dict[tuple[str, str], Any] = {}
        for width, keys in by_width.items():  # together: each transfer waits for the device
            sums_MC = torch.stack([self._sums[k] for k in keys]).double().sum(1)
            values, channels = sums_MC.topk(min(TOP, width), 1)
            columns = (values.tolist(), channels.tolist(), sums_MC.sum(1).tolist())
            found.update(zip(keys, zip(*columns, strict=True), strict=True))
        rows: list[dict[str, Any]] = []
        for error, name in self._sums:
            values, channels, whole = found[error, name]
            rows += [
                {"layer": name, "error": error, "tokens": self._tokens[error, name],
                 "channel": c, "err_sq": v, "all_err_sq": whole}
                for c, v in zip(channels, values, strict=True)
            ]  # fmt: skip
        self._sums, self._tokens = {}, defaultdict(int)
        return pa.Table.from_pylist(rows, schema=CHANNELS)
