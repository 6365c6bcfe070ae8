"""Are weights in a wide dtype really values on a b-bit grid?

A model that was quantised and unpacked again (a GGUF file, a merged fake-quantised checkpoint) says
bfloat16 and holds, in each group that shares a scale, at most 2^b distinct values. Sampled rows
are cut into runs, and the distinct values of each run counted:

    run of 32, 64, 128, 256 columns or a whole row  →  up to 4, 5, 6, 7, 8 bits

A width is only claimed where every run has at most 2^b distinct values and these are at most half
as many as its non-zero values, which dense or pruned weights never show. Not seen: 5 bits and more
in groups of 32, where a run has no more values than the grid (Q5, Q6, Q8 of GGUF).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 16  # sampled
_RUNS = ((32, 4), (64, 5), (128, 6), (256, 7))  # columns, most bits that can be told apart


@dataclass(frozen=True)
class ValueGrid:
    """At most 2**bits distinct values in every ``span``."""

    bits: int
    span: str  # "32 columns" or "row"


@torch.no_grad()
def effective_bits(weight: Tensor, *, transposed: bool = False) -> ValueGrid | None:
    """Return the narrowest grid that the values of ``weight`` (O, I) lie on, or None.

    Parameters
    ----------
    weight : at least two-dimensional; leading dimensions are joined.
    transposed : rows are input channels, as in transformers' Conv1D.

    """
    matrix = weight.detach()
    matrix = matrix.T if transposed else matrix.reshape(-1, matrix.shape[-1])
    rows, columns = matrix.shape
    if not rows or columns < _RUNS[0][0]:
        return None
    pick = torch.linspace(0, rows - 1, min(rows, _ROWS)).round().long().to(matrix.device)
    sample = matrix[pick].float()
    best: ValueGrid | None = None
    for length, most in (*_RUNS, (columns, 8)):
        if length > columns:
            continue
        distinct, nonzero = _count(sample[:, : columns // length * length].reshape(-1, length))
        bits = max(1, int(distinct.max() - 1).bit_length())
        if bits <= most and 2 * int(distinct.sum()) <= int(nonzero.sum()):
            span = "row" if length == columns else f"{length} columns"
            if best is None or bits <= best.bits:
                best = ValueGrid(bits, span)
    return best


def _count(runs: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct values, and non-zero values, of each row of ``runs`` (N, K)."""
    ordered = runs.sort(-1).values
    distinct = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(-1)
    return distinct, (runs != 0).sum(-1)
