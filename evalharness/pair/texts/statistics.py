"""Token statistics of a pair: every quantity that needs both logit rows, from one look at them.

Shapes: N positions, V vocabulary. Logits may be bfloat16, float16 or float32; arithmetic is in
float32, and in float64 where a row is put together. With Δ = z′ − z, c near it and d = Δ − c,

    KL(p‖q) = log E_p[eᵈ] − E_p[d],   log E_p[eᵈ] = log1p(E_p[d] + E_p[eᵈ − 1 − d]):

unlike Σ p (log p − log q) this keeps its precision when the two models nearly agree (the last term
is a sum of terms that are never negative), and it is exactly 0 when Δ is. Ties go to the lowest
token id everywhere: bfloat16 logits tie often.

Three ways to the same numbers, to rounding: Triton kernels on CUDA (`triton_statistics`), a
compiled loop on the CPU for long runs, and blocks of plain torch operations (`statistics_rows`).
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from evalharness.pair.texts.statistics_cpu import WORK, Sums, eager_sums, finish, fused_sums

FIELDS = (
    "nll_ref",
    "nll_cand",
    "kl",
    "kl_reverse",
    "total_variation",
    "entropy_ref",
    "entropy_cand",
    "conf_ref",
    "conf_cand",
    "argmax_ref",
    "argmax_cand",
    "top5_overlap",
    "max_abs",
    "max_abs_token",
    "half_range",
    "bad_ref",
    "bad_cand",
)

EAGER_BYTES = 1 << 20  # of a block of rows in float32: a core's second-level cache
COMPILED_ROWS = 8  # both sides' bfloat16 rows of 49 k tokens stay in a core's second-level cache
# Compiling takes some 14 s (the result is cached on disk) and saves 0.3 ms a position at a
# vocabulary of 49 k.
COMPILE_FROM = 2_400_000_000  # logits in a run, positions × vocabulary

log = logging.getLogger(__name__)


def worth_compiling(positions: int, vocabulary: int, device: torch.device | str) -> bool:
    """Whether a run of so many positions should ask `token_statistics` for ``compiled``.

    Decide it once for a run, from its full size: the two CPU paths differ in the last bits, and a
    resumed run must give what an uninterrupted one gives.
    """
    return torch.device(device).type == "cpu" and positions * vocabulary >= COMPILE_FROM


def can_compile() -> bool:
    """Whether the compiled loop works on this machine: it takes a C++ compiler."""
    return _compiled_sums() is not None


def token_statistics(
    z_ref_NV: Tensor, z_cand_NV: Tensor, target_N: Tensor, *, compiled: bool = False
) -> dict[str, Tensor]:
    """Statistics of N positions from both models' logits and the true next tokens.

    Returns a dict of (N,) tensors named as the columns of `records.TOKENS`, in nats, logits and
    probabilities, plus ``bad_ref``/``bad_cand``: whether the row holds a NaN or an infinity (its
    other values are then meaningless). ``compiled``: on a CPU, use the compiled loop.
    """
    if z_ref_NV.shape != z_cand_NV.shape or target_N.shape != z_ref_NV.shape[:1]:
        raise ValueError(
            "both sides must have one row of the same vocabulary for each target "
            f"(got {tuple(z_ref_NV.shape)}, {tuple(z_cand_NV.shape)}, {tuple(target_N.shape)})"
        )
    if len(target_N) == 0:
        return _empty(target_N.device)
    if z_ref_NV.is_cuda and torch.version.hip is None and _has_triton():
        from evalharness.pair.texts.statistics_triton import triton_statistics

        found = triton_statistics(z_ref_NV, z_cand_NV, target_N)
        return {name: found[name] for name in FIELDS}
    device = z_ref_NV.device
    if device.type == "mps":  # has no float64
        z_ref_NV, z_cand_NV, target_N = z_ref_NV.cpu(), z_cand_NV.cpu(), target_N.cpu()
    if compiled and z_ref_NV.device.type == "cpu":
        blocks = _compiled_blocks(z_ref_NV, z_cand_NV)
    else:
        blocks = _eager_blocks(z_ref_NV, z_cand_NV)
    sums = Sums(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))
    found = finish(sums, z_ref_NV, z_cand_NV, target_N)
    return {name: found[name].to(device) for name in FIELDS}


def _eager_blocks(z_NV: Tensor, w_NV: Tensor) -> list[Sums]:
    n, v = z_NV.shape
    size = EAGER_BYTES if z_NV.device.type == "cpu" else 64 * EAGER_BYTES
    rows = min(n, max(1, size // (4 * v)))
    work = torch.empty(WORK, rows, v, dtype=torch.float32, device=z_NV.device)
    return [eager_sums(z_NV[i : i + rows], w_NV[i : i + rows], work) for i in range(0, n, rows)]


def _compiled_blocks(z_NV: Tensor, w_NV: Tensor) -> list[Sums]:
    sums, n, size = _compiled_sums(), len(z_NV), COMPILED_ROWS
    if sums is None or n < size:  # a block of another size would be compiled anew
        return _eager_blocks(z_NV, w_NV)
    blocks = [sums(z_NV[i : i + size], w_NV[i : i + size]) for i in range(0, n - size + 1, size)]
    if rest := n % size:  # some rows a second time, rather than the rest by the slower way
        last = sums(z_NV[-size:], w_NV[-size:])
        blocks.append(Sums(*(values[-rest:] for values in last)))
    return blocks


def _empty(device: torch.device) -> dict[str, Tensor]:
    z = torch.zeros(1, 1)
    one = finish(eager_sums(z, z), z, z, torch.zeros(1, dtype=torch.int64))
    return {name: one[name][:0].to(device) for name in FIELDS}


@functools.cache
def _has_triton() -> bool:
    if importlib.util.find_spec("triton") is None:
        log.warning("triton is not installed: token statistics take several times as long")
        return False
    return True


@functools.cache
def _compiled_sums() -> Callable[[Tensor, Tensor], Sums] | None:
    """`fused_sums` compiled; None where there is no working C++ compiler."""
    compiled: Callable[[Tensor, Tensor], Sums] = torch.compile(fused_sums, dynamic=False)
    try:
        compiled(torch.zeros(2, 512), torch.zeros(2, 512))
    except Exception as error:
        log.warning("torch.compile failed, using plain torch: %s", str(error).partition("\n")[0])
        return None
    return compiled
