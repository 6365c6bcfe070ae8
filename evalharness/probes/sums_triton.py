"""The layer probes on CUDA: one small kernel a module, one to fold a batch of them.

Shapes: N tokens, C channels, M modules, D documents. One warp takes one token through its channels
(four do, through a head's): reductions need no shared memory, and the loads of many tokens overlap.
"""

# mypy: ignore-errors
# Triton has no type annotations, and is not installed where there is no GPU.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from evalharness.run.records import BINS, BINS_PER_OCTAVE, EDGE_MIN

EACH = tl.constexpr(8)  # channels a lane takes at a time
FOLD = 128  # tokens a program folds
WIDE, TALL = 128, 16  # channels a program of `_channels` sums, rows it has in flight
EDGE = tl.constexpr(EDGE_MIN)
OCTAVE = tl.constexpr(BINS_PER_OCTAVE)
LAST = tl.constexpr(BINS - 1)


def triton_rows(a_NC: Tensor, b_NC: Tensor, x_NC: Tensor | None, out_RN: Tensor) -> None:
    """See `sums.plain_rows`."""
    n, c = a_NC.shape
    x = a_NC if x_NC is None else x_NC
    a, b, x = (t if t.stride(1) == 1 else t.contiguous() for t in (a_NC, b_NC, x))
    warps = 1 if c <= 16384 else 4
    with torch.cuda.device_of(a):
        _rows[(n,)](
            a,
            b,
            x,
            out_RN,
            a.stride(0),
            b.stride(0),
            x.stride(0),
            c,
            n,
            UPDATE=x_NC is not None,
            LANES=32 * warps,
            num_warps=warps,
        )


@triton.jit
def _rows(
    a_ptr,
    b_ptr,
    x_ptr,
    out_ptr,
    stride_a,
    stride_b,
    stride_x,
    channels,
    n,
    UPDATE: tl.constexpr,
    LANES: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    a_ptr += row * stride_a
    b_ptr += row * stride_b
    x_ptr += row * stride_x
    lane = tl.arange(0, LANES)
    place = lane[:, None] * EACH + tl.arange(0, EACH)[None, :]
    err = tl.zeros((LANES,), tl.float32)
    ref = tl.zeros((LANES,), tl.float32)
    cand = tl.zeros((LANES,), tl.float32)
    dot = tl.zeros((LANES,), tl.float32)
    update = tl.zeros((LANES,), tl.float32)
    largest = tl.full((LANES,), -1.0, tl.float32)
    largest_at = tl.zeros((LANES,), tl.int32)  # where the LANES · EACH channels with it begin
    for start in range(0, channels, LANES * EACH):
        at = start + place
        inside = at < channels
        a = tl.load(a_ptr + at, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(b_ptr + at, mask=inside, other=0.0).to(tl.float32)
        delta = b - a
        err += tl.sum(delta * delta, 1)
        ref += tl.sum(a * a, 1)
        cand += tl.sum(b * b, 1)
        dot += tl.sum(a * delta, 1)
        if UPDATE:
            step = a - tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
            update += tl.sum(step * step, 1)
        most = tl.max(tl.abs(delta), 1)
        largest_at = tl.where(most > largest, start, largest_at)  # the first of equals stays
        largest = tl.maximum(most, largest)
    top = tl.max(largest, 0)
    at = tl.min(tl.where(largest == top, largest_at, channels), 0) + place
    inside = at < channels
    a = tl.load(a_ptr + at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + at, mask=inside, other=0.0).to(tl.float32)
    found = (tl.abs(b - a) == top) & inside
    channel = tl.min(tl.min(tl.where(found, at, channels), 1), 0)
    out_ptr += row
    tl.store(out_ptr, tl.sum(err, 0))
    tl.store(out_ptr + n, tl.sum(ref, 0))
    tl.store(out_ptr + 2 * n, tl.sum(cand, 0))
    tl.store(out_ptr + 3 * n, tl.sum(dot, 0))
    tl.store(out_ptr + 4 * n, tl.sum(update, 0))
    tl.store(out_ptr + 5 * n, top)
    tl.store(out_ptr + 6 * n, channel.to(tl.float32))


def triton_channels(
    a_NC: Tensor, b_NC: Tensor, counts_K: Tensor, every: int, sums_PC: Tensor
) -> None:
    """Add Σ (b − a)² of each channel over the rows 0, ``every``, … that count, in parts."""
    a, b = (t if t.stride(1) == 1 else t.contiguous() for t in (a_NC, b_NC))
    parts, c = sums_PC.shape
    with torch.cuda.device_of(a):
        _channels[(triton.cdiv(c, WIDE), parts)](
            a,
            b,
            counts_K.view(torch.int8),
            sums_PC,
            a.stride(0) * every,
            b.stride(0) * every,
            len(counts_K),
            c,
            PARTS=parts,
            WIDE=WIDE,
            TALL=TALL,
            num_warps=4,
        )


@triton.jit(do_not_specialize=["rows"])
def _channels(
    a_ptr,
    b_ptr,
    counts_ptr,
    sums_ptr,
    stride_a,
    stride_b,
    rows,
    channels,
    PARTS: tl.constexpr,
    WIDE: tl.constexpr,
    TALL: tl.constexpr,
):
    at = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    part = tl.program_id(1)
    inside = at < channels
    sums = tl.zeros((WIDE,), tl.float32)
    for start in range(part * TALL, rows, PARTS * TALL):
        k = start + tl.arange(0, TALL)
        counts = tl.load(counts_ptr + k, mask=k < rows, other=0) != 0
        there = counts[:, None] & inside[None, :]
        row = k.to(tl.int64)[:, None]
        a = tl.load(a_ptr + row * stride_a + at[None, :], mask=there, other=0.0).to(tl.float32)
        b = tl.load(b_ptr + row * stride_b + at[None, :], mask=there, other=0.0).to(tl.float32)
        delta = b - a
        sums += tl.sum(delta * delta, 0)
    sums_ptr += part * channels
    before = tl.load(sums_ptr + at, mask=inside, other=0.0)
    tl.store(sums_ptr + at, before + sums, mask=inside)


def triton_fold(
    rows_RMN: Tensor,
    index_M: Tensor,
    docs_N: Tensor,
    later_N: Tensor,
    counted_N: Tensor,
    order_N: Tensor,
    histogram_2MDB: Tensor,
) -> tuple[Tensor, Tensor]:
    """See `sums.LayerSums._fold`. Integer atomics alone: the order of threads changes nothing."""
    _, m, n = rows_RMN.shape
    modules, documents = histogram_2MDB.shape[1:3]
    values = torch.empty(5, m, n, dtype=torch.float64, device=rows_RMN.device)
    top = torch.full((m, documents), -1, dtype=torch.int64, device=rows_RMN.device)
    with torch.cuda.device_of(rows_RMN):
        _fold[(triton.cdiv(n, FOLD), m)](
            rows_RMN,
            index_M,
            docs_N,
            later_N.view(torch.int8),
            counted_N.view(torch.int8),
            order_N,
            histogram_2MDB,
            values,
            top,
            m,
            n,
            modules,
            documents,
            FOLD=FOLD,
            num_warps=4,
        )
    return values, top


@triton.jit
def _bin(value):
    octaves = tl.log2(value / EDGE)
    place = tl.minimum(tl.maximum(octaves * OCTAVE, 0.0), LAST - 1).to(tl.int32) + 1
    place = tl.where(value < float("inf"), place, LAST)  # ∞ and NaN
    return tl.where(value < EDGE, 0, place)


@triton.jit(do_not_specialize=["m", "modules"])  # 1 would become a Python int
def _fold(
    rows_ptr,
    index_ptr,
    docs_ptr,
    later_ptr,
    counted_ptr,
    order_ptr,
    histogram_ptr,
    values_ptr,
    top_ptr,
    m,
    n,
    modules,
    documents,
    FOLD: tl.constexpr,
):
    at = tl.program_id(0) * FOLD + tl.arange(0, FOLD)
    module = tl.program_id(1)
    inside = at < n
    doc = tl.load(docs_ptr + at, mask=inside, other=0)
    later = tl.load(later_ptr + at, mask=inside, other=0) != 0
    counted = tl.load(counted_ptr + at, mask=inside, other=0) != 0
    rows_ptr += module.to(tl.int64) * n
    size = m.to(tl.int64) * n
    err = tl.load(rows_ptr + at, mask=inside, other=0.0).to(tl.float64)
    ref = tl.load(rows_ptr + size + at, mask=inside, other=0.0).to(tl.float64)
    cand = tl.load(rows_ptr + 2 * size + at, mask=inside, other=0.0).to(tl.float64)
    dot = tl.load(rows_ptr + 3 * size + at, mask=inside, other=0.0).to(tl.float64)
    update = tl.load(rows_ptr + 4 * size + at, mask=inside, other=0.0).to(tl.float64)
    largest = tl.load(rows_ptr + 5 * size + at, mask=inside, other=0.0)

    finite = (tl.abs(ref) < float("inf")) & (tl.abs(cand) < float("inf"))
    index = tl.load(index_ptr + module)

    relative = tl.where(err > 0, tl.sqrt(err / ref), 0.0)
    size_a, size_b = tl.sqrt(ref), tl.sqrt(cand)
    longer = (err + 2 * dot) / (size_a + size_b)
    cosine = (err - longer * longer) / (2 * size_a * size_b)
    cosine = tl.minimum(tl.maximum(cosine, 0.0), 2.0)
    cosine = tl.where((ref > 0) & (cand > 0), cosine, 1.0)
    cosine = tl.where(err == 0, 0.0, cosine)  # 1 − cos, see `sums._one_minus_cosine`

    good = counted & finite
    values_ptr += module.to(tl.int64) * n
    tl.store(values_ptr + at, tl.where(good, err, 0.0), mask=inside)
    tl.store(values_ptr + size + at, tl.where(good, ref, 0.0), mask=inside)
    tl.store(values_ptr + 2 * size + at, tl.where(good, update, 0.0), mask=inside)
    tl.store(values_ptr + 3 * size + at, tl.where(good, cosine, 0.0), mask=inside)
    spoilt = tl.where(counted, 1.0, 0.0) - tl.where(good, 1.0, 0.0)
    tl.store(values_ptr + 4 * size + at, spoilt.to(tl.float64), mask=inside)

    place = (index * documents + doc) * (LAST + 1)
    tl.atomic_add(histogram_ptr + place + _bin(relative), 1, mask=later, sem="relaxed")
    histogram_ptr += modules.to(tl.int64) * documents * (LAST + 1)
    tl.atomic_add(histogram_ptr + place + _bin(cosine), 1, mask=later, sem="relaxed")

    # The bits of a float that is not negative order as the float does; below them, the token.
    order = tl.load(order_ptr + at, mask=inside, other=0)
    key = (largest.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (n - 1 - order)
    top_ptr += module * documents + doc
    known = tl.load(top_ptr, mask=later, other=0)  # spares most of the atomics
    tl.atomic_max(top_ptr, key, mask=later & (key > known), sem="relaxed")
