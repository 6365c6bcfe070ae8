"""The worst channels: where along the width of a module's output the error lies.

One position in EVERY of a block's first batch is looked at: which channel holds the most squared
error is a matter of sums over hundreds of tokens, and reading every activation a second time, or
starting half a dozen more kernels a module and batch, is not worth it. Nothing here waits for the
device before `table`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from evalharness.probes.sums import has_triton
from evalharness.run.records import CHANNELS

EVERY = 17  # prime, so that these are no fixed places of a window
TOP = 8  # channels of a module kept in the records
PARTS = 8  # that a kernel sums separately, so that many programs run at a time


class ChannelSums:
    """Σ Δ² by channel of each module and kind of error, over a sample of the tokens."""

    def __init__(self, device: torch.device) -> None:
        # The sums are float64, which mps lacks.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self._sums: dict[tuple[str, str], Tensor] = {}  # (parts, C)
        self._tokens: dict[tuple[str, str], Tensor] = {}
        self._sampled: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def add(
        self, error: str, name: str, ref: Tensor, cand: Tensor, docs_BT: Tensor, at_BT: Tensor
    ) -> None:
        """Take in one module's outputs, one row a token."""
        counts_K, tokens = self._sample(docs_BT, at_BT)
        a, b = (t.reshape(-1, t.shape[-1]).to(self.device) for t in (ref, cand))
        key, kernel = (error, name), a.is_cuda and has_triton()
        if key not in self._sums:
            shape = (PARTS if kernel else 1, a.shape[1])
            dtype = torch.float32 if kernel else torch.float64
            self._sums[key] = torch.zeros(shape, dtype=dtype, device=self.device)
            self._tokens[key] = torch.zeros_like(tokens)
        if kernel:
            from evalharness.probes.sums_triton import triton_channels

            triton_channels(a, b, counts_K, EVERY, self._sums[key])
        else:
            delta = (b[::EVERY].float() - a[::EVERY].float())[counts_K]
            self._sums[key] += delta.square().sum(0, dtype=torch.float64)
        self._tokens[key] = self._tokens[key] + tokens

    def _sample(self, docs_BT: Tensor, at_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the positions 0, EVERY, … count, (K,), and how many; once for a batch."""
        known = self._sampled
        if known is None or known[0] is not docs_BT or known[1] is not at_BT:
            slots_K, at_K = (t.reshape(-1)[::EVERY].to(self.device) for t in (docs_BT, at_BT))
            counts_K = (slots_K >= 0) & (at_K > 0)
            known = self._sampled = (docs_BT, at_BT, counts_K, counts_K.sum())
        return known[2], known[3]

    def table(self) -> pa.Table:
        """Rows of `records.CHANNELS`: the TOP channels of each module; the sums start anew."""
        keys = list(self._sums)
        tokens = torch.stack(list(self._tokens.values())).tolist() if keys else []
        by_width: dict[int, list[int]] = defaultdict(list)
        for i, key in enumerate(keys):
            if tokens[i]:
                by_width[self._sums[key].shape[1]].append(i)
        found: dict[int, Any] = {}
        for width, members in by_width.items():  # together: each transfer waits for the device
            sums_MC = torch.stack([self._sums[keys[i]] for i in members]).double().sum(1)
            values, channels = sums_MC.topk(min(TOP, width), 1)
            whole = sums_MC.sum(1).tolist()
            found |= zip(members, zip(values.tolist(), channels.tolist(), whole))
        rows = [
            (*reversed(keys[i]), tokens[i], channel, value, found[i][2])
            for i in sorted(found)
            for value, channel in zip(*found[i][:2], strict=True)
        ]
        self._sums, self._tokens = {}, {}
        taken = list(zip(*rows, strict=True)) or [()] * len(CHANNELS)
        names = ("layer", "error", "tokens", "channel", "err_sq", "all_err_sq")
        return pa.table(dict(zip(names, taken, strict=True)), schema=CHANNELS)
