"""Layer probes as running sums on the device: what each module's outputs differ by, per document.

A hook that computed its statistics with plain torch operations would start a dozen small kernels a
module. Here `add` reads both activations once and leaves seven numbers a token; `reduce` folds the
whole batch, all modules at once, into float64 sums per module and document. Neither waits for the
device, nothing of an activation's size is kept, and the order of summation is fixed, so that the
same run gives the same bits (float atomics would not). `table` is the one transfer to the host.

Shapes: B sequences, T tokens, N = B·T, C channels, M modules, D documents (local slots).
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from evalharness.records import BINS, BINS_PER_OCTAVE, EDGE_MIN, LAYERS

# What is summed, and again for position 0. Σ(1 − cos) keeps its precision where Σ cos loses it.
SUMS = ("tokens", "err_sq", "ref_sq", "update_sq", "one_minus_cos")
POS0 = ("pos0_tokens", "pos0_err_sq", "pos0_ref_sq", "pos0_update_sq", "pos0_one_minus_cos")
CHUNK = 1 << 20  # elements of a (modules, tokens) temporary; float64, about ten alive at a time
# What a token leaves: err = ‖b−a‖², ref = ‖a‖², cand = ‖b‖², dot = a·(b−a), update = ‖a−x‖², max
# |b−a| and its channel.
ROWS = 7
BLOCK = 1 << 16  # elements of a block of rows that stays in a core's cache
PENDING = 1 << 22  # tokens × modules added before they are folded (28 bytes each)


class LayerSums:
    """Running sums of the difference between two models' activations, per module and document.

    ``modules`` are (name, kind, class name on the reference side) as in `records.LAYERS`. Use:
    `add` once for each module and batch, `table` when the block of documents is complete.
    """

    def __init__(
        self,
        modules: Sequence[tuple[str, str, str]],
        documents: int,
        device: torch.device | str,
        error: str = "total",
    ) -> None:
        self.modules, self.documents, self.error = tuple(modules), documents, error
        self.device = torch.device(device)
        self._with_update: set[int] = set()
        self._pending: dict[int, list[_Rows]] = {}
        self._pending_tokens = 0
        self._allocate()

    def _allocate(self) -> None:
        m, d, device = len(self.modules), self.documents, self.device
        wide = torch.float64
        self._sums_SMD = torch.zeros(len(SUMS) + len(POS0), m, d, dtype=wide, device=device)
        # Largest |Δ|, then its position and channel; −1: no token yet.
        self._largest_3MD = torch.full((3, m, d), -1.0, dtype=wide, device=device)
        self._histogram_2MDB = torch.zeros(2, m, d, BINS, dtype=torch.int32, device=device)
        self._bad_2M = torch.zeros(2, m, dtype=torch.bool, device=device)

    def add(
        self,
        index: int,
        h_ref: Tensor,
        h_cand: Tensor,
        slots_BT: Tensor,
        positions_BT: Tensor,
        x_ref: Tensor | None = None,
    ) -> None:
        """Take in one module's outputs on both sides, (…, C) with B·T rows, in any float dtype.

        ``slots_BT``: each token's document slot, −1: leave it out. ``positions_BT``: its place in
        the document; 0 is kept apart. ``x_ref``: the module's input on the reference side, for the
        size of its update f(x) − x. Pass the same slots and positions tensors for all modules of a
        batch: those are then folded together.
        """
        h_ref, h_cand = h_ref.to(self.device), h_cand.to(self.device)
        if x_ref is not None:
            x_ref = x_ref.to(self.device)
            self._with_update.add(index)
        rows_RN = row_sums(h_ref, h_cand, x_ref, slots_BT.numel())
        self._pending.setdefault(index, []).append(_Rows(rows_RN, slots_BT, positions_BT))
        self._pending_tokens += slots_BT.numel()
        if self._pending_tokens >= PENDING:
            self.reduce()

    def reduce(self) -> None:
        """Fold what was added into the sums, without waiting for the device."""
        groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for i, rows in sorted(self._pending.items()):
            groups[tuple((id(r.slots), id(r.positions)) for r in rows)].append(i)
        for members in groups.values():
            like = self._pending[members[0]]
            slots_N = self._flat([r.slots for r in like])
            positions_N = self._flat([r.positions for r in like])
            batch = _Batch.of(slots_N, positions_N, self.documents)
            step = max(1, CHUNK // max(1, slots_N.numel()))
            for at in range(0, len(members), step):
                part = members[at : at + step]
                rows_RMN = torch.stack(
                    [torch.cat([r.numbers for r in self._pending[i]], 1) for i in part], 1
                )
                self._reduce(rows_RMN, self._index(part), batch)
        self._pending, self._pending_tokens = {}, 0

    def _flat(self, parts: list[Tensor]) -> Tensor:
        flat = [p.reshape(-1).to(self.device, torch.int64, non_blocking=True) for p in parts]
        return torch.cat(flat)

    def _index(self, members: list[int]) -> Tensor:
        index = torch.tensor(members)
        if self.device.type == "cuda":  # from pinned memory the copy waits for nothing
            index = index.pin_memory()
        return index.to(self.device, non_blocking=True)

    def _reduce(self, rows_RMN: Tensor, index: Tensor, batch: _Batch) -> None:
        err, ref, cand, dot, update = rows_RMN[:5].double()
        bad_2MN = ~torch.stack([ref, cand]).isfinite() & batch.counted
        bad_MN = bad_2MN.any(0)
        self._bad_2M[:, index] |= bad_2MN.any(-1)
        relative = torch.where(err > 0, (err / ref).sqrt(), 0.0)
        one_minus_cos = _one_minus_cosine(err, ref, cand, dot)

        values = torch.stack([torch.ones_like(err), err, ref, update, one_minus_cos])
        # Padding may hold anything, and 0·NaN in the product would reach every document.
        values = torch.where(batch.counted & ~bad_MN, values, 0.0)
        total = torch.cat([values @ batch.later_hot, values @ batch.first_hot])
        nan_MD = (bad_MN.double() @ (batch.later_hot + batch.first_hot)) > 0
        self._sums_SMD[:, index] += torch.where(nan_MD, torch.nan, total)

        self._count(0, index, relative, batch)
        self._count(1, index, one_minus_cos, batch)
        self._keep_largest(index, rows_RMN[5].double(), rows_RMN[6].double(), batch)

    def _count(self, which: int, index: Tensor, value_MN: Tensor, batch: _Batch) -> None:
        slot_MN = index[:, None] * self.documents + batch.slots
        place = (slot_MN * BINS + _bin(value_MN)).reshape(-1)
        ones = batch.later.int().expand_as(value_MN).reshape(-1)
        self._histogram_2MDB[which].view(-1).scatter_add_(0, place, ones)

    def _keep_largest(
        self, index: Tensor, value_MN: Tensor, channel_MN: Tensor, batch: _Batch
    ) -> None:
        """Largest |Δ| of each document; ties: the lowest position, then the lowest channel."""
        n = batch.slots.numel()
        unset = torch.iinfo(torch.int64).max
        slot_MN = batch.slots.expand_as(value_MN)
        value_MN = torch.where(batch.later, value_MN, -1.0)
        top_MD = value_MN.new_full((len(index), self.documents), -1.0)
        top_MD.scatter_reduce_(1, slot_MN, value_MN, "amax")
        is_top = (value_MN == top_MD.gather(1, slot_MN)) & batch.later
        rank_N = batch.positions * n + torch.arange(n, device=self.device)
        rank_MN = torch.where(is_top, rank_N, unset)
        rank_MD = rank_MN.new_full(top_MD.shape, unset)
        rank_MD.scatter_reduce_(1, slot_MN, rank_MN, "amin")
        found = rank_MD != unset
        at_MD = torch.where(found, rank_MD % max(n, 1), 0)
        new = torch.stack([top_MD, batch.positions[at_MD].double(), channel_MN.gather(1, at_MD)])
        old = self._largest_3MD[:, index]
        better = (new[0] > old[0]) | ((new[0] == old[0]) & (new[1] < old[1]))
        self._largest_3MD[:, index] = torch.where(better & found, new, old)

    def non_finite(self) -> tuple[str | None, str | None]:
        """The first module (in the order given) with a NaN or an infinity: reference, candidate."""
        self.reduce()
        found: list[str | None] = []
        for side in self._bad_2M.tolist():
            found.append(
                next((m[0] for m, bad in zip(self.modules, side, strict=True) if bad), None)
            )
        return found[0], found[1]

    def table(self, documents: Sequence[int]) -> pa.Table:
        """Rows of `records.LAYERS`, modules in order, then documents; slot i is ``documents[i]``.

        Pairs without a token are left out. A document in which a module's output is not finite has
        NaN sums. The sums start anew.
        """
        self.reduce()
        names = (*SUMS, *POS0)
        sums = dict(zip(names, self._sums_SMD.cpu().numpy(), strict=True))
        seen = np.nan_to_num(sums["tokens"], nan=1) + np.nan_to_num(sums["pos0_tokens"], nan=1) > 0
        m, d = np.nonzero(seen)
        flat = {name: values[m, d] for name, values in sums.items()}
        largest, position, channel = (x[m, d] for x in self._largest_3MD.cpu().numpy())
        none = position < 0
        tokens = np.nan_to_num(flat["tokens"])
        columns: dict[str, Any] = {
            "layer": [self.modules[i][0] for i in m],
            "kind": [self.modules[i][1] for i in m],
            "type": [self.modules[i][2] for i in m],
            "error": [self.error] * len(m),
            "doc": np.asarray(documents, np.int32)[d],
            "tokens": tokens.astype(np.int32),
            "err_sq": flat["err_sq"],
            "ref_sq": flat["ref_sq"],
            "update_sq": pa.array(flat["update_sq"], mask=~np.isin(m, list(self._with_update))),
            "cos_sum": flat["tokens"] - flat["one_minus_cos"],
            "max_abs": pa.array(largest, mask=none),
            "max_abs_position": pa.array(position.astype(np.int32), mask=none),
            "max_abs_channel": pa.array(channel.astype(np.int32), mask=none),
            "pos0_err_sq": flat["pos0_err_sq"],
            "pos0_ref_sq": flat["pos0_ref_sq"],
        }
        for name, histogram in zip(("rel", "cos"), self._histogram_2MDB, strict=True):
            sparse = _sparse(histogram)
            both = [sparse.get(key, ([], [])) for key in zip(m.tolist(), d.tolist(), strict=True)]
            columns[f"{name}_bins"] = [bins for bins, _ in both]
            columns[f"{name}_counts"] = [counts for _, counts in both]
        self._allocate()
        self._with_update = set()
        return pa.table({name: columns[name] for name in LAYERS.names}, schema=LAYERS)


@dataclass(frozen=True)
class _Rows:
    """What `row_sums` left of one module and batch, and the batch it belongs to."""

    numbers: Tensor  # (ROWS, N)
    slots: Tensor  # (B, T)
    positions: Tensor  # (B, T)


@dataclass(frozen=True)
class _Batch:
    """Where the tokens of a batch belong."""

    slots: Tensor  # (N,), never negative; see counted
    positions: Tensor  # (N,)
    counted: Tensor  # (N,): not padding
    later: Tensor  # (N,): counted, and not position 0
    # (N, D) one-hot: products instead of scatter-adds are float64 in a fixed order.
    later_hot: Tensor
    first_hot: Tensor

    @classmethod
    def of(cls, slots_N: Tensor, positions_N: Tensor, documents: int) -> _Batch:
        counted = slots_N >= 0
        first = counted & (positions_N == 0)
        later = counted & ~first
        slots_N = slots_N.clamp_min(0)
        hot_ND = slots_N[:, None] == torch.arange(documents, device=slots_N.device)
        return cls(
            slots_N, positions_N, counted, later,
            (hot_ND & later[:, None]).double(), (hot_ND & first[:, None]).double(),
        )  # fmt: skip


def row_sums(a: Tensor, b: Tensor, x: Tensor | None, tokens: int) -> Tensor:
    """The ROWS numbers of every token, (ROWS, N) float32.

    a (reference), b (candidate), x (reference's input): (…, C) with ``tokens`` rows.
    """
    a_NC, b_NC = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    if a_NC.shape != b_NC.shape or a_NC.shape[0] != tokens:
        raise ValueError(
            f"both sides must have one row for each of the {tokens} tokens and the same width "
            f"(got {tuple(a.shape)} and {tuple(b.shape)})"
        )
    x_NC = None if x is None else x.reshape(a_NC.shape)
    out_RN = torch.empty(ROWS, tokens, dtype=torch.float32, device=a.device)
    if a.is_cuda and importlib.util.find_spec("triton") is not None:
        from evalharness.probes.sums_triton import triton_rows

        triton_rows(a_NC, b_NC, x_NC, out_RN)
    else:
        plain_rows(a_NC, b_NC, x_NC, out_RN)
    return out_RN


def plain_rows(a_NC: Tensor, b_NC: Tensor, x_NC: Tensor | None, out_RN: Tensor) -> None:
    """The rows in plain torch."""
    n, c = a_NC.shape
    step = max(1, BLOCK // max(1, c)) if a_NC.device.type == "cpu" else max(n, 1)
    for i in range(0, n, step):
        s = slice(i, i + step)
        a, b = a_NC[s].float(), b_NC[s].float()
        delta = b - a
        out_RN[0, s] = delta.square().sum(-1)
        out_RN[1, s] = a.square().sum(-1)
        out_RN[2, s] = b.square().sum(-1)
        out_RN[3, s] = (a * delta).sum(-1)
        out_RN[4, s] = 0.0 if x_NC is None else (a - x_NC[s].float()).square().sum(-1)
        absolute = delta.abs()
        out_RN[5, s] = absolute.amax(-1)
        out_RN[6, s] = absolute.argmax(-1).float()


def _one_minus_cosine(err: Tensor, ref: Tensor, cand: Tensor, dot: Tensor) -> Tensor:
    """1 − cos(a, b) from ‖b−a‖², ‖a‖², ‖b‖² and a·(b−a), without cancellation.

    2‖a‖‖b‖(1 − cos) = ‖b−a‖² − (‖b‖−‖a‖)², and (‖b‖−‖a‖)(‖b‖+‖a‖) = ‖b−a‖² + 2a·(b−a). Two zero
    vectors agree (0); a zero and a non-zero one are taken as orthogonal (1).
    """
    a, b = ref.sqrt(), cand.sqrt()
    length = (err + 2 * dot) / (a + b)
    value = ((err - length.square()) / (2 * a * b)).clamp(0, 2)
    return torch.where(err == 0, 0.0, torch.where((ref > 0) & (cand > 0), value, 1.0))


def _bin(value: Tensor) -> Tensor:
    """Bin of a value in the histograms of `records.LAYERS`; NaN goes to the last."""
    octaves = (value / EDGE_MIN).nan_to_num(torch.inf, torch.inf).clamp_min(0.5).log2()
    return torch.where(
        octaves < 0, 0, 1 + (octaves * BINS_PER_OCTAVE).clamp(0, BINS - 2).floor()
    ).long()


def _sparse(histogram_MDB: Tensor) -> dict[tuple[int, int], tuple[list[int], list[int]]]:
    """(module, slot) → the bins that are not empty, and their counts."""
    place = histogram_MDB.nonzero()
    counts = histogram_MDB[place.unbind(1)].tolist()
    found: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for (m, d, b), count in zip(place.tolist(), counts, strict=True):
        bins, values = found.setdefault((m, d), ([], []))
        bins.append(b)
        values.append(count)
    return found
