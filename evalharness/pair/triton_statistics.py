"""Token statistics on CUDA: each logit is read once.

Shapes: N positions, V vocabulary, T tiles of TILE tokens. `_tiles` reads a tile of both rows into
registers and leaves eleven sums relative to the tile's own maxima and to its own shift
c = max z′ − max z, near which the tile's Δ lie; nothing there can overflow or cancel. `_rows`
brings a row's tiles to common maxima, and reads again only the five tiles a side that can hold
the five largest logits, and the one with the largest difference. The formulas are those of
`statistics_rows`.
"""

# mypy: ignore-errors
# Triton has no type annotations, and is not installed where there is no GPU.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024
TILE_WARPS, ROW_WARPS = 1, 4
SUMS = 16  # eleven, padded to one 64-byte line


def triton_statistics(z_NV: Tensor, w_NV: Tensor, target_N: Tensor) -> dict[str, Tensor]:
    """See `statistics.token_statistics`."""
    n, v = z_NV.shape
    z_NV, w_NV = (x if x.stride(1) == 1 else x.contiguous() for x in (z_NV, w_NV))
    tiles = triton.cdiv(v, TILE)
    sums = torch.empty(n * tiles, SUMS, dtype=torch.float32, device=z_NV.device)
    real = torch.empty(10, n, dtype=torch.float32, device=z_NV.device)
    token = torch.empty(3, n, dtype=torch.int32, device=z_NV.device)
    small = torch.empty(3, n, dtype=torch.int8, device=z_NV.device)
    # A logit that stands for none: e to its power is 0, and its own difference is harmless.
    nothing = -6e4 if torch.float16 in (z_NV.dtype, w_NV.dtype) else -1e30
    with torch.cuda.device_of(z_NV):
        _tiles[(n * tiles,)](
            z_NV, w_NV, sums, z_NV.stride(0), w_NV.stride(0), v, tiles,
            TILE=TILE, NOTHING=nothing, EVEN=v % TILE == 0, num_warps=TILE_WARPS,
        )  # fmt: skip
        _rows[(n,)](
            z_NV, w_NV, target_N, sums, real, token, small,
            z_NV.stride(0), w_NV.stride(0), v, tiles, n,
            TILE=TILE, TILES=triton.next_power_of_2(tiles), num_warps=ROW_WARPS,
        )  # fmt: skip
    names = (
        "nll_ref", "nll_cand", "kl", "kl_reverse", "entropy_ref", "entropy_cand", "conf_ref",
        "conf_cand", "max_abs", "half_range",
    )  # fmt: skip
    return dict(zip(names, real, strict=True)) | {
        "argmax_ref": token[0],
        "argmax_cand": token[1],
        "max_abs_token": token[2],
        "top5_overlap": small[0],
        "bad_ref": small[1].view(torch.bool),
        "bad_cand": small[2].view(torch.bool),
    }


@triton.jit
def _series(d):
    """eᵈ − 1 − d for |d| < 1/4."""
    return d * d * (1 / 2 + d * (1 / 6 + d * (1 / 24 + d * (1 / 120 + d * (1 / 720)))))


@triton.jit
def _tiles(
    z_ptr, w_ptr, out_ptr, stride_z, stride_w, v, tiles,
    TILE: tl.constexpr, NOTHING: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    row = (pid // tiles).to(tl.int64)
    at = (pid % tiles) * TILE + tl.arange(0, TILE)
    if EVEN:
        z = tl.load(z_ptr + row * stride_z + at).to(tl.float32)
        w = tl.load(w_ptr + row * stride_w + at).to(tl.float32)
        delta = w - z
        high, low = tl.max(delta, 0), tl.min(delta, 0)
    else:
        inside = at < v
        z = tl.load(z_ptr + row * stride_z + at, mask=inside, other=NOTHING).to(tl.float32)
        w = tl.load(w_ptr + row * stride_w + at, mask=inside, other=NOTHING).to(tl.float32)
        delta = w - z
        high = tl.max(tl.where(inside, delta, float("-inf")), 0)
        low = tl.min(tl.where(inside, delta, float("inf")), 0)
    top_z, top_w = tl.max(z, 0), tl.max(w, 0)
    a, b = z - top_z, w - top_w
    d = b - a
    ez, ew = tl.exp(a), tl.exp(b)
    ezd = ez * d
    f = _series(d)
    is_small = tl.abs(d) < 0.25
    exp_f = tl.sum(tl.where(is_small, ez * f, ew - ez - ezd), 0)
    exp_j = tl.sum(tl.where(is_small, ezd * (f + d), (ew - ez) * d), 0)
    k = tl.arange(0, 16)
    out = tl.where(k == 0, top_z, 0.0)
    out = tl.where(k == 1, top_w, out)
    out = tl.where(k == 2, high, out)
    out = tl.where(k == 3, low, out)
    out = tl.where(k == 4, tl.sum(ez, 0), out)
    out = tl.where(k == 5, tl.sum(ew, 0), out)
    out = tl.where(k == 6, tl.sum(ezd, 0), out)
    out = tl.where(k == 7, exp_f, out)
    out = tl.where(k == 8, exp_j, out)
    out = tl.where(k == 9, tl.sum(ez * a, 0), out)
    out = tl.where(k == 10, tl.sum(ew * b, 0), out)
    tl.store(out_ptr + pid.to(tl.int64) * 16 + k, out)


@triton.jit
def _five(row_ptr, top, tile, v, TILE: tl.constexpr, TILES: tl.constexpr):
    """Tokens of the five largest logits, ties to the lowest id, in the first of eight places."""
    k = tl.arange(0, 8)
    chosen = tl.full((8,), TILES, tl.int32)
    for i in tl.static_range(5):
        best = tl.min(tl.where(top == tl.max(top, 0), tile, TILES), 0)
        chosen = tl.where(k == i, best, chosen)
        top = tl.where(tile == best, float("-inf"), top)
    token = chosen[:, None] * TILE + tl.arange(0, TILE)[None, :]
    inside = token < v
    x = tl.load(row_ptr + token, mask=inside, other=float("-inf")).to(tl.float32)
    found = tl.full((8,), -1, tl.int32)
    for i in tl.static_range(5):
        best = tl.max(tl.max(x, 1), 0)
        at = tl.min(tl.min(tl.where((x == best) & inside, token, v), 1), 0)
        at = tl.where(best == float("-inf"), v, at)  # fewer than five tokens
        found = tl.where((k == i) & (at < v), at, found)
        x = tl.where(token == at, float("-inf"), x)
    return found


@triton.jit
def _rows(
    z_ptr, w_ptr, target_ptr, sums_ptr, real_ptr, token_ptr, small_ptr,
    stride_z, stride_w, v, tiles, n,
    TILE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    z_ptr += row * stride_z
    w_ptr += row * stride_w
    tile = tl.arange(0, TILES)
    real = tile < tiles
    at = sums_ptr + (row * tiles + tile) * 16
    top_z_T = tl.load(at + 0, mask=real, other=float("-inf"))
    top_w_T = tl.load(at + 1, mask=real, other=float("-inf"))
    high_T = tl.load(at + 2, mask=real, other=float("-inf"))
    low_T = tl.load(at + 3, mask=real, other=float("inf"))
    exp_z_T = tl.load(at + 4, mask=real, other=0.0)
    exp_w_T = tl.load(at + 5, mask=real, other=0.0)
    exp_d_T = tl.load(at + 6, mask=real, other=0.0)
    exp_f_T = tl.load(at + 7, mask=real, other=0.0)
    exp_j_T = tl.load(at + 8, mask=real, other=0.0)
    exp_a_T = tl.load(at + 9, mask=real, other=0.0)
    exp_b_T = tl.load(at + 10, mask=real, other=0.0)

    # To the row's own maxima, and to its shift max z′ − max z: δ is what a tile's d lacks.
    top_z, top_w = tl.max(top_z_T, 0), tl.max(top_w_T, 0)
    a = tl.where(real, top_z_T - top_z, 0.0)
    b = tl.where(real, top_w_T - top_w, 0.0)
    delta = b - a
    ez, ew = tl.exp(a), tl.exp(b)
    series = _series(delta)
    is_small = tl.abs(delta) < 0.25
    g1 = tl.where(is_small, ez * (series + delta), ew - ez)  # eᵃ(e^δ − 1)
    g2 = tl.where(is_small, ez * series, ew - ez - ez * delta)  # eᵃ(e^δ − 1 − δ)
    exp_z = tl.sum(ez * exp_z_T, 0).to(tl.float64)
    exp_w = tl.sum(ew * exp_w_T, 0).to(tl.float64)
    exp_d = tl.sum(ez * (exp_d_T + delta * exp_z_T), 0).to(tl.float64)
    exp_f = tl.sum(ew * exp_f_T + g1 * exp_d_T + g2 * exp_z_T, 0).to(tl.float64)
    exp_j = tl.sum(
        ez * (exp_j_T + delta * (exp_f_T + exp_d_T)) + g1 * (exp_d_T + exp_j_T + delta * exp_w_T),
        0,
    ).to(tl.float64)
    exp_a = tl.sum(ez * (exp_a_T + a * exp_z_T), 0)
    exp_b = tl.sum(ew * (exp_b_T + b * exp_w_T), 0)
    bad_z, bad_w = exp_a != exp_a, exp_b != exp_b

    x, f, j = exp_d / exp_z, exp_f / exp_z, exp_j / exp_z
    log = tl.log(tl.maximum(1.0 + (x + f), 1e-3))
    shift = tl.log(exp_w / exp_z)
    kl = shift - x
    kl = tl.maximum(tl.where(kl > 0.5, kl, log - x), 0.0)
    reverse = (exp_d + exp_j) / exp_w - shift
    reverse = tl.where(reverse > 0.5, reverse, (x + j) / (1.0 + x + f) - log)
    reverse = tl.maximum(reverse, 0.0)

    log_z, log_w = tl.log(exp_z), tl.log(exp_w)
    target = tl.load(target_ptr + row)
    z_target = tl.load(z_ptr + target).to(tl.float32)
    w_target = tl.load(w_ptr + target).to(tl.float32)
    absolute_T = tl.maximum(high_T, -low_T)
    largest = tl.max(absolute_T, 0)
    real_ptr += row
    tl.store(real_ptr, (log_z + (top_z - z_target)).to(tl.float32))
    tl.store(real_ptr + n, (log_w + (top_w - w_target)).to(tl.float32))
    tl.store(real_ptr + 2 * n, kl.to(tl.float32))
    tl.store(real_ptr + 3 * n, reverse.to(tl.float32))
    tl.store(real_ptr + 4 * n, (log_z - exp_a / exp_z).to(tl.float32))
    tl.store(real_ptr + 5 * n, (log_w - exp_b / exp_w).to(tl.float32))
    tl.store(real_ptr + 6 * n, (1.0 / exp_z).to(tl.float32))
    tl.store(real_ptr + 7 * n, (1.0 / exp_w).to(tl.float32))
    tl.store(real_ptr + 8 * n, largest)
    tl.store(real_ptr + 9 * n, (tl.max(high_T, 0) - tl.min(low_T, 0)) / 2)

    best = tl.min(tl.where(absolute_T == largest, tile, TILES), 0)
    token = best * TILE + tl.arange(0, TILE)
    inside = token < v
    z = tl.load(z_ptr + token, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(w_ptr + token, mask=inside, other=0.0).to(tl.float32)
    largest_at = tl.min(tl.where((tl.abs(w - z) == largest) & inside, token, v), 0)

    five_z = _five(z_ptr, top_z_T, tile, v, TILE, TILES)
    five_w = _five(w_ptr, top_w_T, tile, v, TILE, TILES)
    same = (five_z[:, None] == five_w[None, :]) & (five_z >= 0)[:, None]
    k = tl.arange(0, 8)
    token_ptr += row
    tl.store(token_ptr, tl.sum(tl.where(k == 0, five_z, 0), 0))
    tl.store(token_ptr + n, tl.sum(tl.where(k == 0, five_w, 0), 0))
    tl.store(token_ptr + 2 * n, largest_at)
    small_ptr += row
    tl.store(small_ptr, tl.sum(tl.sum(same.to(tl.int32), 1), 0).to(tl.int8))
    tl.store(small_ptr + n, bad_z.to(tl.int8))
    tl.store(small_ptr + 2 * n, bad_w.to(tl.int8))
