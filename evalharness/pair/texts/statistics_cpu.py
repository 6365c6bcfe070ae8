"""Token statistics on the CPU (and wherever Triton is missing): blocks of rows that stay in cache.

Shapes: N positions, V vocabulary, G groups of GROUP and B blocks of BLOCK consecutive tokens, the
last one shorter where V is no multiple. A few rows at a time become `Sums`, by plain torch
operations (`eager_sums`), or by one fused loop (`fused_sums`, for `torch.compile`, which needs a
quarter of the time but seconds to compile). `finish` turns the sums into the statistics; it looks
again only at the groups that can hold a row's five largest logits, and at the block of its largest
difference.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 128
BLOCK = 1024  # what float32 adds up in order: a longer sum loses what stands beside a large term
LOG2_E = 1.4426950408889634
TOP = 5
WORK = 6  # float32 copies of a block that `eager_sums` needs
DIRECT = 0.5  # nats; a KL above is a plain difference of log-sum-exps, by then exact enough


class Sums(NamedTuple):
    """What one look at the rows leaves. a = z − max z, b = z′ − max z′, d = b − a."""

    top_z: Tensor  # (N, G): largest logit of each group; the rest of the vocabulary is summed over
    top_w: Tensor
    high: Tensor  # (N, B): largest and smallest z′ − z of each block
    low: Tensor
    exp_z: Tensor  # (N,): Σ eᵃ
    exp_w: Tensor  # Σ eᵇ
    exp_d: Tensor  # Σ eᵃ d
    exp_f: Tensor  # Σ eᵃ (eᵈ − 1 − d): no term is negative
    exp_j: Tensor  # Σ eᵃ (eᵈ − 1) d: likewise
    exp_a: Tensor  # Σ eᵃ a; NaN if the row is not finite
    exp_b: Tensor  # Σ eᵇ b; likewise
    apart: Tensor  # Σ |p − q|, p and q being eᵃ and eᵇ over their sums


def fused_sums(z_NV: Tensor, w_NV: Tensor) -> Sums:
    """`Sums` written for `torch.compile`: three loops over each row."""
    z, w = z_NV.float(), w_NV.float()
    top_z_NG, top_w_NG = _groups(z, "amax"), _groups(w, "amax")
    top_z, top_w = top_z_NG.amax(1, keepdim=True), top_w_NG.amax(1, keepdim=True)
    delta = w - z
    a, b = z - top_z, w - top_w
    d = delta - (top_w - top_z)
    # 2ˣ costs less than eˣ, and the rounding of x is no more than that of a.
    ez, ew = (a * LOG2_E).exp2(), (b * LOG2_E).exp2()
    ezd = ez * d
    # eᵈ − 1 − d cancels for small d: a series there, else eᵃ·eᵈ = eᵇ, which cannot overflow.
    f = d * d * (1 / 2 + d * (1 / 6 + d * (1 / 24 + d * (1 / 120 + d * (1 / 720)))))
    small = d.abs() < 1 / 4
    exp_z, exp_w = _sum(ez), _sum(ew)
    # The same operations on both sides: where the logits are the same, so are p and q.
    p, q = ez * (1 / exp_z).float()[:, None], ew * (1 / exp_w).float()[:, None]
    return Sums(
        top_z_NG,
        top_w_NG,
        high=_groups(delta, "amax", BLOCK),
        low=_groups(delta, "amin", BLOCK),
        exp_z=exp_z,
        exp_w=exp_w,
        exp_d=_sum(ezd),
        exp_f=_sum(torch.where(small, ez * f, ew - ez - ezd)),
        exp_j=_sum(torch.where(small, ezd * (f + d), (ew - ez) * d)),
        exp_a=_sum(ez * a),
        exp_b=_sum(ew * b),
        apart=_sum((p - q).abs()),
    )


def eager_sums(z_NV: Tensor, w_NV: Tensor, work: Tensor | None = None) -> Sums:
    """`Sums` of a few rows by as few passes as torch's own operations allow.

    ``work``: (WORK, at least N, V) float32, overwritten. To allocate and fault in a new temporary
    for each operation would take longer than the operation.
    """
    n, v = z_NV.shape
    if work is None:
        work = torch.empty(WORK, n, v, dtype=torch.float32, device=z_NV.device)
    a, b, d, p, e, product = work[:, :n]
    a.copy_(z_NV)
    b.copy_(w_NV)
    torch.sub(b, a, out=d)
    top_z_NG, top_w_NG = _groups(a, "amax"), _groups(b, "amax")
    high, low = _groups(d, "amax", BLOCK), _groups(d, "amin", BLOCK)
    top_z, top_w = top_z_NG.amax(1, keepdim=True), top_w_NG.amax(1, keepdim=True)
    shift = top_w - top_z
    if bool((high.amax(1) - shift[:, 0] > 60).any()):  # eᵈ would overflow
        return fused_sums(z_NV, w_NV)

    def dot(x_NV: Tensor, y_NV: Tensor) -> Tensor:
        return torch.mul(x_NV, y_NV, out=product).sum(1)

    a.sub_(top_z)
    b.sub_(top_w)
    d.sub_(shift)
    torch.softmax(a, 1, out=p)  # the fastest exponential torch has
    total, scale = p.sum(1), 1 / p.amax(1)  # but its own sum is rough: Σ p is 1 to 1e-5
    p_a, p_b, p_d = dot(p, a), dot(p, b), dot(p, d)
    torch.expm1(d, out=e)
    pe = torch.mul(p, e, out=a)
    pe_b, p_j = dot(pe, b), dot(pe, d)
    p_f = dot(p, e.sub_(d))
    # q is p eᵈ over its sum: p/Σp − q = (p Σpe/Σp − pe)/Σpeᵈ, e being eᵈ − 1.
    p_e = p_d + p_f
    torch.addcmul(pe, p, (p_e / total)[:, None], value=-1, out=product)
    return Sums(
        top_z_NG,
        top_w_NG,
        high,
        low,
        exp_z=scale * total,
        exp_w=scale * (total + p_e),  # Σ eᵃ eᵈ
        exp_d=scale * p_d,
        exp_f=scale * p_f,
        exp_j=scale * p_j,
        exp_a=scale * p_a,
        exp_b=scale * (p_b + pe_b),
        apart=product.abs_().sum(1) / (total + p_e),
    )


def _sum(x_NV: Tensor) -> Tensor:
    return _groups(x_NV, "sum", BLOCK).sum(1, dtype=torch.float64)


def _groups(x_NV: Tensor, how: str, size: int = GROUP) -> Tensor:
    """Largest (amax), smallest (amin) or sum of each ``size`` consecutive columns."""
    n, v = x_NV.shape
    whole = v // size * size
    parts = [x_NV[:, :whole].view(n, -1, size)] if whole else []
    if whole < v:
        parts.append(x_NV[:, None, whole:])
    return torch.cat([getattr(p, how)(-1) for p in parts], 1)


def finish(s: Sums, z_NV: Tensor, w_NV: Tensor, target_N: Tensor) -> dict[str, Tensor]:
    """The statistics of `token_statistics` from the sums and a second look at a few groups."""
    top_z, top_w = s.top_z.amax(1).double(), s.top_w.amax(1).double()
    exp_z, exp_w = s.exp_z.double(), s.exp_w.double()
    log_z, log_w = exp_z.log(), exp_w.log()  # log-sum-exps, less each side's largest logit
    at = target_N[:, None]
    five_z, five_w = _largest(z_NV, s.top_z), _largest(w_NV, s.top_w)
    largest, token = _largest_difference(s, z_NV, w_NV)
    kl, kl_reverse = _kl(s)
    found = {
        "nll_ref": log_z + (top_z - z_NV.gather(1, at)[:, 0]),
        "nll_cand": log_w + (top_w - w_NV.gather(1, at)[:, 0]),
        "kl": kl,
        "kl_reverse": kl_reverse,
        "total_variation": s.apart / 2,
        "entropy_ref": log_z - s.exp_a / exp_z,
        "entropy_cand": log_w - s.exp_b / exp_w,
        "conf_ref": 1 / exp_z,
        "conf_cand": 1 / exp_w,
        "max_abs": largest,
        "half_range": (s.high.amax(1) - s.low.amin(1)) / 2,
    }
    return {name: value.float() for name, value in found.items()} | {
        "argmax_ref": five_z[:, 0].int(),
        "argmax_cand": five_w[:, 0].int(),
        "top5_overlap": (five_z[:, :, None] == five_w[:, None, :]).sum((1, 2)).to(torch.int8),
        "max_abs_token": token.int(),
        **_bad(s, z_NV, w_NV),
    }


def _kl(s: Sums) -> tuple[Tensor, Tensor]:
    """KL(p‖q) and KL(q‖p) of each row.

    With c a constant near Δ, d = Δ − c, x = E_p[d], f = E_p[eᵈ − 1 − d] and j = E_p[(eᵈ − 1)d]:

        log E_p[eᵈ] = log1p(x + f),   KL(p‖q) = log1p(x + f) − x,
        E_q[d] = (x + j)/(1 + x + f), KL(q‖p) = E_q[d] − log1p(x + f).
    """
    exp_z = s.exp_z.double()
    x, f, j = s.exp_d / exp_z, s.exp_f / exp_z, s.exp_j / exp_z
    log = (x + f).clamp_min(-0.999).log1p()
    shift = (s.exp_w.double() / exp_z).log()
    mean_q = (s.exp_d.double() + s.exp_j) / s.exp_w
    kl, reverse = shift - x, mean_q - shift
    kl = torch.where(kl > DIRECT, kl, log - x)
    reverse = torch.where(reverse > DIRECT, reverse, (x + j) / (1 + x + f) - log)
    return kl.clamp_min(0), reverse.clamp_min(0)


def _largest(z_NV: Tensor, top_NG: Tensor) -> Tensor:
    """Tokens of the TOP largest logits of each row, ties to the lowest id, (N, TOP).

    They lie in the TOP groups with the largest maxima, ties to the lowest group (each of these
    holds a logit that precedes all of another group's), or in the short last group.
    """
    n, v = z_NV.shape
    whole = v // GROUP
    order_NG = _order(top_NG[:, :whole].to(z_NV.dtype))
    group_NK = order_NG.topk(min(TOP, whole), 1).indices.sort(1).values
    values_NP = _runs(z_NV, group_NK, GROUP).view(n, -1)
    if whole * GROUP < v:
        values_NP = torch.cat([values_NP, z_NV[:, whole * GROUP :]], 1)
        group_NK = torch.cat([group_NK, group_NK.new_full((n, 1), whole)], 1)
    place = _order(values_NP).topk(min(TOP, v), 1).indices
    return group_NK.gather(1, place // GROUP) * GROUP + place % GROUP


def _runs(z_NV: Tensor, at_NK: Tensor, size: int) -> Tensor:
    """Logits (N, K, size) of some of the whole runs of ``size`` columns.

    Indexing runs is several times faster than gathering single logits.
    """
    n, v = z_NV.shape
    grouped = z_NV[:, : v // size * size].view(n, -1, size)
    return grouped[torch.arange(n, device=z_NV.device)[:, None], at_NK]


def _order(x_NK: Tensor) -> Tensor:
    """Integers in the order of x, no two alike: among equal values the first is the largest."""
    short, k = x_NK.element_size() == 2, x_NK.shape[1]
    x_NK = (x_NK if short else x_NK.float()) + 0.0  # −0 becomes 0
    bits = x_NK.view(torch.int16 if short else torch.int32)
    bits = bits ^ ((bits >> (15 if short else 31)) & (0x7FFF if short else 0x7FFFFFFF))
    dtype = torch.int32 if short and k < 1 << 16 else torch.int64
    return bits.to(dtype) * k + torch.arange(k - 1, -1, -1, dtype=dtype, device=x_NK.device)


def _largest_difference(s: Sums, z_NV: Tensor, w_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Largest |z′ − z| of each row and its token, ties to the lowest id.

    The first block that has it, in that the first group, in that the first token: argmax takes the
    first of equals, and is slow over long rows.
    """
    (n, v), whole = z_NV.shape, z_NV.shape[1] // BLOCK
    absolute_NB = torch.maximum(s.high, -s.low)
    block = absolute_NB.argmax(1)
    place = torch.zeros_like(block)
    if whole:
        at = block.clamp_max(whole - 1)[:, None]
        groups_NGP = _absolute(_runs(z_NV, at, BLOCK), _runs(w_NV, at, BLOCK)).view(n, -1, GROUP)
        group = groups_NGP.amax(2).argmax(1)
        place = group * GROUP + groups_NGP[torch.arange(n, device=z_NV.device), group].argmax(1)
    if whole * BLOCK < v and bool((last := block == whole).any()):
        rest = slice(whole * BLOCK, None)
        place[last] = _absolute(z_NV[last, rest], w_NV[last, rest]).argmax(1)
    return absolute_NB.amax(1), block * BLOCK + place


def _absolute(z: Tensor, w: Tensor) -> Tensor:
    return (w.float() - z).abs_()


def _bad(s: Sums, z_NV: Tensor, w_NV: Tensor) -> dict[str, Tensor]:
    suspect = ~((s.exp_a + s.exp_b).isfinite() & (s.high.amax(1) - s.low.amin(1)).isfinite())
    bad = {"bad_ref": suspect.clone(), "bad_cand": suspect}
    if bool(suspect.any()):
        at = suspect.nonzero()[:, 0]
        bad["bad_ref"][at] = ~z_NV[at].isfinite().all(1)
        bad["bad_cand"][at] = ~w_NV[at].isfinite().all(1)
    return bad
