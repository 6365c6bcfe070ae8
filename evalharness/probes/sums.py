"""Layer probes as running sums on the device: what each module's outputs differ by, per document.

A hook that computed its statistics with plain torch operations would start a dozen small kernels a
module. Here `add` reads both activations once and leaves seven numbers a token; `reduce` folds the
whole batch, all modules at once, into float64 sums per module and document. Neither waits for the
device, nothing of an activation's size is kept, and the order of summation is fixed, so that the
same run gives the same bits (float atomics would not). `table` is the one transfer to the host.

Shapes: B sequences, T tokens, N = B·T, C channels, M modules, D documents (local docs).
"""

from __future__ import annotations

import functools
import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from evalharness.run.records import BINS, BINS_PER_OCTAVE, EDGE_MIN, LAYERS

Array = np.ndarray[Any, np.dtype[Any]]

# What is summed, and again for position 0. Σ(1 − cos) keeps its precision where Σ cos loses it.
SUMS = ("tokens", "err_sq", "ref_sq", "update_sq", "one_minus_cos")
POS0 = ("pos0_tokens", "pos0_err_sq", "pos0_ref_sq", "pos0_update_sq", "pos0_one_minus_cos")
# What a token leaves: err = ‖b−a‖², ref = ‖a‖², cand = ‖b‖², dot = a·(b−a), update = ‖a−x‖², max
# |b−a| and its channel.
ROWS = 7
BLOCK = 1 << 16  # elements of a block of rows that stays in a core's cache
PENDING = 1 << 21  # tokens × modules added before they are folded (28 bytes each)
FOLD_CPU, FOLD_CUDA = 1 << 17, 1 << 20  # of these, folded at a time (some 100 bytes each)


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
        if self.device.type == "mps":  # has no float64
            self.device = torch.device("cpu")
        self._allocate()

    def _allocate(self) -> None:
        m, d, device = len(self.modules), self.documents, self.device
        wide = torch.float64
        self._sums_SMD = torch.zeros(len(SUMS) + len(POS0), m, d, dtype=wide, device=device)
        # Largest |Δ|, then its position and channel; −1: no token yet.
        self._largest_3MD = torch.full((3, m, d), -1.0, dtype=wide, device=device)
        self._histogram_2MDB = torch.zeros(2, m, d, BINS, dtype=torch.int32, device=device)
        self._with_update: set[int] = set()
        self._pending: dict[int, list[_Rows]] = {}
        self._pending_tokens = 0

    def add(
        self,
        index: int,
        h_ref: Tensor,
        h_cand: Tensor,
        docs_BT: Tensor,
        positions_BT: Tensor,
        x_ref: Tensor | None = None,
    ) -> None:
        """Take in one module's outputs on both sides, (…, C) with B·T rows, in any float dtype.

        ``docs_BT``: each token's document doc, −1: leave it out. ``positions_BT``: its place in
        the document; 0 is summed separately. ``x_ref``: the module's input on the reference side,
        for the size of its update f(x) − x. Pass the same docs and positions tensors for all
        modules of a batch: those are then folded together.
        """
        h_ref, h_cand = h_ref.to(self.device), h_cand.to(self.device)
        if x_ref is not None:
            x_ref = x_ref.to(self.device)
            self._with_update.add(index)
        rows_RN = row_sums(h_ref, h_cand, x_ref, docs_BT, positions_BT)
        self._pending.setdefault(index, []).append(_Rows(rows_RN, docs_BT, positions_BT))
        self._pending_tokens += docs_BT.numel()
        if self._pending_tokens >= PENDING:
            self.reduce()

    def reduce(self) -> None:
        """Fold what was added into the sums, without waiting for the device."""
        groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for i, rows in sorted(self._pending.items()):
            groups[tuple((id(r.docs), id(r.positions)) for r in rows)].append(i)
        for members in groups.values():
            like = self._pending[members[0]]
            batch = _Tokens.of(
                self._flat([r.docs for r in like]),
                self._flat([r.positions for r in like]),
                self.documents,
            )
            size = FOLD_CUDA if self.device.type == "cuda" else FOLD_CPU
            step = max(1, size // max(1, batch.docs.numel()))
            for at in range(0, len(members), step):
                part = members[at : at + step]
                rows_RMN = torch.stack([_joined(self._pending[i]) for i in part], 1)
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

    def _reduce(self, rows_RMN: Tensor, index: Tensor, batch: _Tokens) -> None:
        fold = _plain_fold
        if rows_RMN.is_cuda and has_triton():
            from evalharness.probes.sums_triton import triton_fold as fold
        values_5MN, top_MD = fold(
            rows_RMN,
            index,
            batch.docs,
            batch.later,
            batch.counted,
            batch.order,
            self._histogram_2MDB,
        )
        # One-hot products instead of scatter-adds: float64 in a fixed order.
        total = (values_5MN @ batch.hot).view(5, -1, 2, self.documents).movedim(2, 0)
        spoilt_MD = total[:, 4].sum(0) > 0
        counts = batch.hot.sum(0).view(2, 1, 1, -1).expand(2, 1, *top_MD.shape)
        total = torch.cat([counts, torch.where(spoilt_MD, torch.nan, total[:, :4])], 1)
        self._sums_SMD[:, index] += total.flatten(0, 1)

        found = top_MD >= 0
        rank_MD = torch.where(found, batch.docs.numel() - 1 - (top_MD & 0xFFFFFFFF), 0)
        at_MD = batch.by_order[rank_MD]
        value_MD = torch.where(found, (top_MD >> 32).int().view(torch.float32), -1.0)
        new = torch.stack(
            [
                value_MD.double(),
                batch.positions[at_MD].double(),
                rows_RMN[6].gather(1, at_MD).double(),
            ]
        )
        old = self._largest_3MD[:, index]
        better = (new[0] > old[0]) | ((new[0] == old[0]) & (new[1] < old[1]))
        self._largest_3MD[:, index] = torch.where(better & found, new, old)

    def table(self, documents: Sequence[int]) -> pa.Table:
        """Rows of `records.LAYERS`, modules in order, then documents; doc i is ``documents[i]``.

        Pairs without a token are left out. A document in which a module's output is not finite has
        NaN sums. The sums start anew.
        """
        self.reduce()
        sums = dict(zip((*SUMS, *POS0), self._sums_SMD.cpu().numpy()))
        m, d = np.nonzero(sums["tokens"] + sums["pos0_tokens"])
        sums = {name: values[m, d] for name, values in sums.items()}
        largest, position, channel = (x[m, d] for x in self._largest_3MD.cpu().numpy())
        none = position < 0
        columns: dict[str, Any] = {
            "layer": [self.modules[i][0] for i in m],
            "kind": [self.modules[i][1] for i in m],
            "type": [self.modules[i][2] for i in m],
            "error": [self.error] * len(m),
            "doc": np.asarray(documents, np.int32)[d],
            "tokens": sums["tokens"].astype(np.int32),
            "update_sq": pa.array(sums["update_sq"], mask=~np.isin(m, list(self._with_update))),
            "cos_sum": sums["tokens"] - sums["one_minus_cos"],
            "max_abs": pa.array(largest, mask=none),
            "max_abs_position": pa.array(position.astype(np.int32), mask=none),
            "max_abs_channel": pa.array(channel.astype(np.int32), mask=none),
        }
        for name in ("err_sq", "ref_sq", "pos0_err_sq", "pos0_ref_sq"):
            columns[name] = sums[name]
        for name, histogram_MDB in zip(("rel", "cos"), self._histogram_2MDB):
            sparse = _sparse(histogram_MDB, m, d)
            columns[f"{name}_bins"], columns[f"{name}_counts"] = sparse
        self._allocate()
        return pa.table({name: columns[name] for name in LAYERS.names}, schema=LAYERS)


@dataclass(frozen=True)
class _Rows:
    """What `row_sums` left of one module and batch, and the batch it belongs to."""

    numbers: Tensor  # (ROWS, N)
    docs: Tensor  # (B, T)
    positions: Tensor  # (B, T)


def _joined(rows: list[_Rows]) -> Tensor:
    return rows[0].numbers if len(rows) == 1 else torch.cat([r.numbers for r in rows], 1)


@dataclass(frozen=True)
class _Tokens:
    """Where the tokens of a batch belong. All but the last are (N,)."""

    docs: Tensor  # never negative; see counted
    positions: Tensor
    counted: Tensor  # not padding
    later: Tensor  # counted, and not position 0
    by_order: Tensor  # the tokens by position
    order: Tensor  # its inverse: each token's place in it
    hot: Tensor  # (N, 2·D) float64: one-hot of the later tokens' docs, then of the first ones'

    @classmethod
    def of(cls, docs_N: Tensor, positions_N: Tensor, documents: int) -> _Tokens:
        counted = docs_N >= 0
        first = counted & (positions_N == 0)
        later = counted & ~first
        docs_N = docs_N.clamp_min(0)
        by_order = positions_N.argsort(stable=True)
        order = torch.empty_like(by_order)
        order[by_order] = torch.arange(len(by_order), device=by_order.device)
        hot_ND = docs_N[:, None] == torch.arange(documents, device=docs_N.device)
        return cls(
            docs_N,
            positions_N,
            counted,
            later,
            by_order,
            order,
            torch.cat([hot_ND & later[:, None], hot_ND & first[:, None]], 1).double(),
        )


@functools.cache
def has_triton() -> bool:
    """Whether the CUDA kernels can be used."""
    return torch.version.hip is None and importlib.util.find_spec("triton") is not None


def row_sums(
    a: Tensor, b: Tensor, x: Tensor | None, docs_BT: Tensor, positions_BT: Tensor
) -> Tensor:
    """The ROWS numbers of every token, (ROWS, N) float32.

    a (reference), b (candidate), x (reference's input): (…, C), one row a token.
    """
    n = docs_BT.numel()
    a_NC, b_NC = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    if a_NC.shape != b_NC.shape or a_NC.shape[0] != n:
        raise ValueError(
            f"both sides must have one row for each of the {n} tokens and the same width "
            f"(got {tuple(a.shape)} and {tuple(b.shape)})"
        )
    x_NC = None if x is None else x.reshape(a_NC.shape)
    out_RN = torch.empty(ROWS, n, dtype=torch.float32, device=a.device)
    if a.is_cuda and has_triton():
        from evalharness.probes.sums_triton import triton_rows

        triton_rows(a_NC, b_NC, x_NC, out_RN)
        return out_RN
    plain_rows(a_NC, b_NC, x_NC, out_RN)
    # The channel is needed of a document's largest difference alone, and is slow to find.
    docs_N, positions_N = docs_BT.reshape(-1).to(a.device), positions_BT.reshape(-1).to(a.device)
    largest_N = torch.where((docs_N >= 0) & (positions_N > 0), out_RN[5], -1.0)
    # Numbered anew: a few tokens may belong to any of a block's documents.
    docs_N = torch.unique(docs_N.clamp_min(0), return_inverse=True)[1]
    most_D = largest_N.new_full((n,), -1.0).scatter_reduce(0, docs_N, largest_N, "amax")
    at = ((largest_N >= 0) & (largest_N == most_D[docs_N])).nonzero()[:, 0]
    out_RN[6] = 0
    out_RN[6, at] = (b_NC[at].float() - a_NC[at].float()).abs().argmax(-1).float()
    return out_RN


def plain_rows(a_NC: Tensor, b_NC: Tensor, x_NC: Tensor | None, out_RN: Tensor) -> None:
    """All but the channel in plain torch, a block of rows at a time, in buffers used again."""
    n, c = a_NC.shape
    step = min(n, max(1, BLOCK // max(1, c))) if a_NC.device.type == "cpu" else n
    work = torch.empty(4, step, c, dtype=torch.float32, device=a_NC.device)
    for i in range(0, n, max(1, step)):
        at = slice(i, i + step)
        a, b, delta, product = work[:, : min(step, n - i)]
        out = out_RN[:, at]
        torch.sub(b.copy_(b_NC[at]), a.copy_(a_NC[at]), out=delta)
        torch.sum(torch.mul(a, delta, out=product), -1, out=out[3])
        for k, value in enumerate((delta, a, b)):
            torch.linalg.vector_norm(value, dim=-1, out=out[k])  # one pass instead of two
        torch.amax(delta.abs_(), -1, out=out[5])
        out[4] = 0.0
        if x_NC is not None:
            torch.linalg.vector_norm(a.sub_(b.copy_(x_NC[at])), dim=-1, out=out[4])
    out_RN[[0, 1, 2, 4]] = out_RN[[0, 1, 2, 4]].square()


def _plain_fold(
    rows_RMN: Tensor,
    index_M: Tensor,
    docs_N: Tensor,
    later_N: Tensor,
    counted_N: Tensor,
    order_N: Tensor,
    histogram_2MDB: Tensor,
) -> tuple[Tensor, Tensor]:
    """Count the tokens of some modules into the histograms and flags; return what is to be summed.

    Returns (5, M, N) float64: err, ref, update, 1 − cos and whether the token is not finite (then
    and in padding the others are 0); and (M, D) int64: the largest |b−a| of a document's tokens,
    its bits above, below them n − 1 − order of its token, the first in order among equals; −1 none.
    """
    err, ref, cand, dot, update = rows_RMN[:5].double()
    bad_MN = ~(ref.isfinite() & cand.isfinite()) & counted_N
    relative = torch.where(err > 0, (err / ref).sqrt(), 0.0)
    cosine = _one_minus_cosine(err, ref, cand, dot)
    values = torch.where(counted_N & ~bad_MN, torch.stack([err, ref, update, cosine]), 0.0)

    documents = histogram_2MDB.shape[2]
    ones = later_N.int().expand_as(err).reshape(-1)
    for histogram, value in zip(histogram_2MDB, (relative, cosine)):
        place = (index_M[:, None] * documents + docs_N) * BINS + _bin(value)
        histogram.view(-1).scatter_add_(0, place.reshape(-1), ones)

    # The bits of a float that is not negative order as the float does.
    bits = rows_RMN[5].view(torch.int32).long() << 32
    key = torch.where(later_N, bits | (len(order_N) - 1 - order_N), -1)
    top = key.new_full((len(index_M), documents), -1)
    top.scatter_reduce_(1, docs_N.expand_as(key), key, "amax")
    return torch.cat([values, bad_MN[None].double()]), top


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


def _sparse(histogram_MDB: Tensor, m: Array, d: Array) -> tuple[pa.ListArray, pa.ListArray]:
    """The bins that are not empty and their counts, of each of the pairs (m, d), in their order."""
    place = histogram_MDB.nonzero()
    counts = histogram_MDB[place.unbind(1)].cpu().numpy()
    module, document, bins = place.cpu().numpy().T
    documents = histogram_MDB.shape[1]
    pairs = module * documents + document  # ascending
    ends = np.searchsorted(pairs, m * documents + d, side="right")
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return (
        pa.ListArray.from_arrays(offsets, pa.array(bins.astype(np.int16))),
        pa.ListArray.from_arrays(offsets, pa.array(counts)),
    )
