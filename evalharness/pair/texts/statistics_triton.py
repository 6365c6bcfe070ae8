"""Token statistics on CUDA: each logit is read twice.

Shapes: N positions, V vocabulary, T tiles of TILE tokens, each of G groups of GROUP. `_tiles` reads
a tile of both rows into registers and leaves the groups' largest logits and nine sums, relative to
the tile's own maxima and its own shift c = max z′ − max z: near it lie the tile's Δ, so nothing
overflows or cancels. `_rows` brings a row's tiles to common maxima, and reads again only the five
groups a side that can hold the five largest logits, and the tile with the largest difference. The
formulas are those of `statistics_rows`. `_apart` reads the tiles once more: |p − q| takes both
rows' whole sums.

One warp a program: reductions need no shared memory, and the loads of many programs overlap.
"""

# mypy: ignore-errors
# Triton has no type annotations, and is not installed where there is no GPU.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024
GROUP = 128
SUMS = tl.constexpr(16)  # nine, padded
ROW_WARPS = 1
REAL = (
    "nll_ref",
    "nll_cand",
    "kl",
    "kl_reverse",
    "entropy_ref",
    "entropy_cand",
    "conf_ref",
    "conf_cand",
    "max_abs",
    "half_range",
)
LOG2E = tl.constexpr(1.4426950408889634)
NOTHING = tl.constexpr(-(2.0**100))  # stands for a logit beyond the vocabulary; exact in bfloat16
C1, C2, C3 = tl.constexpr(0.16666709), tl.constexpr(0.04173862), tl.constexpr(0.00833393)


def triton_statistics(z_NV: Tensor, w_NV: Tensor, target_N: Tensor) -> dict[str, Tensor]:
    """See `statistics.token_statistics`."""
    n, v = z_NV.shape
    z_NV, w_NV = (x if x.stride(1) == 1 else x.contiguous() for x in (z_NV, w_NV))
    tiles, groups = triton.cdiv(v, TILE), TILE // GROUP
    sums = torch.empty(n * tiles, 2 * groups + SUMS.value, dtype=torch.float32, device=z_NV.device)
    real = torch.empty(len(REAL), n, dtype=torch.float32, device=z_NV.device)
    token = torch.empty(3, n, dtype=torch.int32, device=z_NV.device)
    small = torch.empty(3, n, dtype=torch.int8, device=z_NV.device)
    apart = torch.empty(n * tiles, dtype=torch.float32, device=z_NV.device)
    with torch.cuda.device_of(z_NV):
        _tiles[(n * tiles,)](
            z_NV,
            w_NV,
            sums,
            z_NV.stride(0),
            w_NV.stride(0),
            v,
            tiles,
            TILE=TILE,
            GROUPS=groups,
            EVEN=v % TILE == 0,
            num_warps=1,
        )
        _rows[(n,)](
            z_NV,
            w_NV,
            target_N.contiguous(),
            sums,
            real,
            token,
            small,
            z_NV.stride(0),
            w_NV.stride(0),
            v,
            tiles,
            n,
            TILE=TILE,
            GROUPS=groups,
            TILES=triton.next_power_of_2(tiles),
            num_warps=ROW_WARPS,
        )
        _apart[(n * tiles,)](
            z_NV,
            w_NV,
            real,
            token,
            apart,
            z_NV.stride(0),
            w_NV.stride(0),
            v,
            tiles,
            n,
            TILE=TILE,
            EVEN=v % TILE == 0,
            num_warps=1,
        )
    return dict(zip(REAL, real, strict=True)) | {
        "total_variation": (apart.view(n, tiles).sum(1, dtype=torch.float64) / 2).float(),
        "argmax_ref": token[0],
        "argmax_cand": token[1],
        "max_abs_token": token[2],
        "top5_overlap": small[0],
        "bad_ref": small[1].view(torch.bool),
        "bad_cand": small[2].view(torch.bool),
    }


@triton.jit
def _ratio(d):
    """(eᵈ − 1 − d)/d² for |d| < 1/4, to 2e-6, and exactly at 0."""
    return 0.5 + d * (C1 + d * (C2 + d * C3))


@triton.jit
def _exp(x):
    return tl.exp2(x * LOG2E)  # flushes denormal results to 0, which `exp` takes pains not to


@triton.jit
def _logits(row_ptr, at, v, EVEN: tl.constexpr):
    """Logits in float32; beyond the vocabulary a large negative number."""
    if EVEN:
        return tl.load(row_ptr + at).to(tl.float32)
    inside = at < v
    if row_ptr.dtype.element_ty == tl.float16:  # has no such number
        return tl.where(
            inside, tl.load(row_ptr + at, mask=inside, other=0.0).to(tl.float32), NOTHING
        )
    return tl.load(row_ptr + at, mask=inside, other=NOTHING).to(tl.float32)


@triton.jit
def _tiles(
    z_ptr,
    w_ptr,
    out_ptr,
    stride_z,
    stride_w,
    v,
    tiles,
    TILE: tl.constexpr,
    GROUPS: tl.constexpr,
    EVEN: tl.constexpr,
):
    pid = tl.program_id(0)
    row = (pid // tiles).to(tl.int64)
    at = (pid % tiles) * TILE + tl.arange(0, TILE)
    z = _logits(z_ptr + row * stride_z, at, v, EVEN)
    w = _logits(w_ptr + row * stride_w, at, v, EVEN)
    top_z_G = tl.max(tl.reshape(z, (GROUPS, TILE // GROUPS)), 1)
    top_w_G = tl.max(tl.reshape(w, (GROUPS, TILE // GROUPS)), 1)
    top_z, top_w = tl.max(top_z_G, 0), tl.max(top_w_G, 0)
    a, b = z - top_z, w - top_w
    # d is at most 0 at z's largest logit and at least 0 at w's, and exactly 0 beyond the
    # vocabulary, which is therefore neither its largest nor its smallest.
    d = b - a
    shift = top_w - top_z
    ez, ew = _exp(a), _exp(b)
    ezd = ez * d
    # eᵈ − 1 − d cancels for small d: a polynomial there, else eᵃ·eᵈ = eᵇ, which cannot overflow.
    is_small = tl.abs(d) < 0.25
    near = ezd * d * _ratio(d)
    g = tl.where(is_small, near + ezd, ew - ez)
    f = tl.where(is_small, near, g - ezd)
    out_ptr += pid.to(tl.int64) * (2 * GROUPS + SUMS)
    k = tl.arange(0, GROUPS)
    tl.store(out_ptr + k, top_z_G)
    tl.store(out_ptr + GROUPS + k, top_w_G)
    k = tl.arange(0, SUMS)
    out = tl.where(k == 0, tl.max(d, 0) + shift, tl.min(d, 0) + shift)
    out = tl.where(k == 2, tl.sum(ez, 0), out)
    out = tl.where(k == 3, tl.sum(ew, 0), out)
    out = tl.where(k == 4, tl.sum(ezd, 0), out)
    out = tl.where(k == 5, tl.sum(f, 0), out)
    out = tl.where(k == 6, tl.sum(g * d, 0), out)
    out = tl.where(k == 7, tl.sum(ez * a, 0), out)
    out = tl.where(k == 8, tl.sum(ew * b, 0), out)
    tl.store(out_ptr + 2 * GROUPS + k, out)


@triton.jit
def _five(row_ptr, top, group, v, GROUP: tl.constexpr, MANY: tl.constexpr):
    """Tokens of the five largest logits, ties to the lowest id, in the first of eight places.

    top, group: each group's largest logit and number, of any one shape (R, C).
    """
    k = tl.arange(0, 8)
    chosen = tl.full((8,), MANY, tl.int32)
    for i in tl.static_range(5):
        most = tl.max(tl.max(top, 1), 0)
        best = tl.min(tl.min(tl.where(top == most, group, MANY), 1), 0)
        chosen = tl.where(k == i, best, chosen)
        top = tl.where(group == best, float("-inf"), top)
    token = chosen[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
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
    z_ptr,
    w_ptr,
    target_ptr,
    sums_ptr,
    real_ptr,
    token_ptr,
    small_ptr,
    stride_z,
    stride_w,
    v,
    tiles,
    n,
    TILE: tl.constexpr,
    GROUPS: tl.constexpr,
    TILES: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    z_ptr += row * stride_z
    w_ptr += row * stride_w
    tile = tl.arange(0, TILES)
    real = tile < tiles
    line = 2 * GROUPS + SUMS
    at = sums_ptr + (row * tiles + tile) * line + 2 * GROUPS
    high_T = tl.load(at + 0, mask=real, other=float("-inf"))
    low_T = tl.load(at + 1, mask=real, other=float("inf"))
    exp_z_T = tl.load(at + 2, mask=real, other=0.0)
    exp_w_T = tl.load(at + 3, mask=real, other=0.0)
    exp_d_T = tl.load(at + 4, mask=real, other=0.0)
    exp_f_T = tl.load(at + 5, mask=real, other=0.0)
    exp_j_T = tl.load(at + 6, mask=real, other=0.0)
    exp_a_T = tl.load(at + 7, mask=real, other=0.0)
    exp_b_T = tl.load(at + 8, mask=real, other=0.0)
    group = tile[:, None] * GROUPS + tl.arange(0, GROUPS)[None, :]
    at = sums_ptr + (row * tiles + tile[:, None]) * line + tl.arange(0, GROUPS)[None, :]
    top_z_TG = tl.load(at, mask=real[:, None], other=float("-inf"))
    top_w_TG = tl.load(at + GROUPS, mask=real[:, None], other=float("-inf"))
    top_z_T, top_w_T = tl.max(top_z_TG, 1), tl.max(top_w_TG, 1)

    # To the row's own maxima, and to its shift max z′ − max z: δ is what a tile's d lacks.
    top_z, top_w = tl.max(top_z_T, 0), tl.max(top_w_T, 0)
    a = tl.where(real, top_z_T - top_z, 0.0)
    b = tl.where(real, top_w_T - top_w, 0.0)
    delta = b - a
    ez, ew = _exp(a), _exp(b)
    near = ez * delta * delta * _ratio(delta)
    is_small = tl.abs(delta) < 0.25
    g1 = tl.where(is_small, near + ez * delta, ew - ez)  # eᵃ(e^δ − 1)
    g2 = tl.where(is_small, near, ew - ez - ez * delta)  # eᵃ(e^δ − 1 − δ)
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
    # NaN: a logit of ±∞ is 0·∞ or ∞ − ∞ by now.
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
    real_ptr += row
    tl.store(real_ptr, (log_z + (top_z - z_target)).to(tl.float32))
    tl.store(real_ptr + n, (log_w + (top_w - w_target)).to(tl.float32))
    tl.store(real_ptr + 2 * n, kl.to(tl.float32))
    tl.store(real_ptr + 3 * n, reverse.to(tl.float32))
    tl.store(real_ptr + 4 * n, (log_z - exp_a / exp_z).to(tl.float32))
    tl.store(real_ptr + 5 * n, (log_w - exp_b / exp_w).to(tl.float32))
    tl.store(real_ptr + 6 * n, (1.0 / exp_z).to(tl.float32))
    tl.store(real_ptr + 7 * n, (1.0 / exp_w).to(tl.float32))
    tl.store(real_ptr + 9 * n, (tl.max(high_T, 0) - tl.min(low_T, 0)) / 2)

    absolute_T = tl.maximum(high_T, -low_T)
    best = tl.min(tl.where(absolute_T == tl.max(absolute_T, 0), tile, TILES), 0)
    token = best * TILE + tl.arange(0, TILE)
    inside = token < v
    z = tl.load(z_ptr + token, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(w_ptr + token, mask=inside, other=0.0).to(tl.float32)
    absolute = tl.where(inside, tl.abs(w - z), -1.0)
    largest = tl.max(absolute, 0)
    largest_at = tl.min(tl.where(absolute == largest, token, v), 0)
    tl.store(real_ptr + 8 * n, largest)

    five_z = _five(z_ptr, top_z_TG, group, v, TILE // GROUPS, TILES * GROUPS)
    five_w = _five(w_ptr, top_w_TG, group, v, TILE // GROUPS, TILES * GROUPS)
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


@triton.jit
def _apart(
    z_ptr,
    w_ptr,
    real_ptr,
    token_ptr,
    out_ptr,
    stride_z,
    stride_w,
    v,
    tiles,
    n,
    TILE: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Σ |p − q| of a tile, p = e^(z − max z)·conf_ref and q likewise, from what `_rows` left."""
    pid = tl.program_id(0)
    row = (pid // tiles).to(tl.int64)
    at = (pid % tiles) * TILE + tl.arange(0, TILE)
    z_ptr += row * stride_z
    w_ptr += row * stride_w
    real_ptr += row
    token_ptr += row
    # −1 where a NaN hides the largest logit; such a row is flagged, whatever comes out of it.
    top_z = tl.load(z_ptr + tl.maximum(tl.load(token_ptr), 0)).to(tl.float32)
    top_w = tl.load(w_ptr + tl.maximum(tl.load(token_ptr + n), 0)).to(tl.float32)
    p = _exp(_logits(z_ptr, at, v, EVEN) - top_z) * tl.load(real_ptr + 6 * n)
    q = _exp(_logits(w_ptr, at, v, EVEN) - top_w) * tl.load(real_ptr + 7 * n)
    # abs(p - q) might fuse one product, and leave its rounding where p and q are the same.
    tl.store(out_ptr + pid, tl.sum(tl.maximum(p, q) - tl.minimum(p, q), 0))
