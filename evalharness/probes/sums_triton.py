"""The layer probes' inner loop on CUDA: both activations are read once, one small kernel a module.

Shapes: N tokens, C channels. A program takes one token through its channels, BLOCK at a time.
"""

# mypy: ignore-errors
# Triton has no type annotations, and is not installed where there is no GPU.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def triton_rows(a_NC: Tensor, b_NC: Tensor, x_NC: Tensor | None, out_RN: Tensor) -> None:
    """See `sums.plain_rows`."""
    n, c = a_NC.shape
    x = a_NC if x_NC is None else x_NC
    a, b, x = (t if t.stride(1) == 1 else t.contiguous() for t in (a_NC, b_NC, x))
    with torch.cuda.device_of(a):
        _rows[(n,)](
            a, b, x, out_RN, a.stride(0), b.stride(0), x.stride(0), c, n,
            BLOCK=min(2048, triton.next_power_of_2(c)), UPDATE=x_NC is not None, num_warps=4,
        )  # fmt: skip


@triton.jit
def _rows(
    a_ptr, b_ptr, x_ptr, out_ptr, stride_a, stride_b, stride_x, channels, n,
    BLOCK: tl.constexpr, UPDATE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    a_ptr += row * stride_a
    b_ptr += row * stride_b
    x_ptr += row * stride_x
    lane = tl.arange(0, BLOCK)
    err = tl.zeros((BLOCK,), tl.float32)
    ref = tl.zeros((BLOCK,), tl.float32)
    cand = tl.zeros((BLOCK,), tl.float32)
    dot = tl.zeros((BLOCK,), tl.float32)
    update = tl.zeros((BLOCK,), tl.float32)
    largest = tl.full((BLOCK,), -1.0, tl.float32)
    channel = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, channels, BLOCK):
        at = start + lane
        inside = at < channels
        a = tl.load(a_ptr + at, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(b_ptr + at, mask=inside, other=0.0).to(tl.float32)
        delta = b - a
        err += delta * delta
        ref += a * a
        cand += b * b
        dot += a * delta
        if UPDATE:
            step = a - tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
            update += step * step
        absolute = tl.where(inside, tl.abs(delta), -1.0)
        channel = tl.where(absolute > largest, at, channel)  # the first of equals stays
        largest = tl.maximum(absolute, largest)
    top = tl.max(largest, 0)
    first = tl.min(tl.where(largest == top, channel, channels), 0)
    out_ptr += row
    tl.store(out_ptr, tl.sum(err, 0))
    tl.store(out_ptr + n, tl.sum(ref, 0))
    tl.store(out_ptr + 2 * n, tl.sum(cand, 0))
    tl.store(out_ptr + 3 * n, tl.sum(dot, 0))
    tl.store(out_ptr + 4 * n, tl.sum(update, 0))
    tl.store(out_ptr + 5 * n, top)
    tl.store(out_ptr + 6 * n, first.to(tl.float32))
