"""Linear CKA between the blocks of two models of any depth and width.

What is left to compare where blocks have no counterpart: how alike the geometry of the same tokens
is in two spaces (Kornblith et al. 2019, arXiv 1905.00414). HSIC is the unbiased estimator on
minibatches of tokens, summed before it is divided, so that the batch's size does not bias it
(Nguyen, Raghu & Kornblith 2021, arXiv 2010.15327, after Song et al. 2012):

    HSIC(K, L) = [⟨K̃, L̃⟩ + ΣK̃·ΣL̃/((n−1)(n−2)) − 2/(n−2)·Σᵢ(K̃1)ᵢ(L̃1)ᵢ] / (n(n−3))

with K̃ the Gram matrix of n tokens without its diagonal. Position 0 is left out: its massive norm
would be all there is to see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from evalharness.data.windows import Window, padded, spread
from evalharness.pair.matching import decoder_blocks
from evalharness.pair.side import Side
from evalharness.run.records import CKA

WINDOWS = 2  # in a minibatch
TOKENS = 128  # of each
LEAST = 8  # tokens in a minibatch


@torch.inference_mode()
def similarity(
    reference: Side,
    candidate: Side,
    windows: Sequence[Window],
    progress: Callable[[int], None] = lambda tokens: None,
) -> pa.Table:
    """Rows of `records.CKA`: every block of one side against every block of the other."""
    rows: list[dict[str, Any]] = []
    for number, start in enumerate(range(0, len(windows), WINDOWS)):
        batch = windows[start : start + WINDOWS]
        grams = [_grams(side, batch) for side in (reference, candidate)]
        n = next(iter(grams[0].values())).shape[0] if grams[0] else 0
        progress(sum(len(s.ids) for s in batch))
        if n < LEAST or not grams[1]:
            continue
        ref, cand = (torch.stack(list(g.values())).to(candidate.device) for g in grams)
        both = hsic(ref, cand)
        own = [hsic(k, k).diagonal() for k in (ref, cand)]
        for i, a in enumerate(grams[0]):
            rows += [
                {
                    "reference": a,
                    "candidate": b,
                    "minibatch": number,
                    "tokens": n,
                    "hsic": float(both[i, j]),
                    "hsic_ref": float(own[0][i]),
                    "hsic_cand": float(own[1][j]),
                }
                for j, b in enumerate(grams[1])
            ]
    return pa.Table.from_pylist(rows, schema=CKA)


def hsic(k_Ann: Tensor, l_Bnn: Tensor) -> Tensor:
    """Unbiased HSIC (A, B) of every pair of Gram matrices whose diagonals are 0."""
    n = k_Ann.shape[-1]
    rows_k, rows_l = k_Ann.sum(-1), l_Bnn.sum(-1)
    inner = k_Ann.flatten(1) @ l_Bnn.flatten(1).T
    sums = rows_k.sum(-1)[:, None] * rows_l.sum(-1)[None] / ((n - 1) * (n - 2))
    return (inner + sums - 2 / (n - 2) * (rows_k @ rows_l.T)) / (n * (n - 3))


def _grams(side: Side, batch: Sequence[Window]) -> dict[str, Tensor]:
    """Gram matrix (n, n) of each block's output at the sampled tokens, float64, no diagonal."""
    ids = padded(batch)
    rows = torch.tensor(
        [
            i * ids.shape[1] + 1 + at
            for i, window in enumerate(batch)
            for at in spread(len(window.ids) - 1, min(TOKENS, len(window.ids) - 1))
        ],
        dtype=torch.int64,
    )
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, out: Any) -> None:
            h = out[0] if isinstance(out, tuple | list) else out
            x_nC = h.flatten(0, 1)[rows.to(h.device)]
            x_nC = (x_nC.cpu() if x_nC.device.type == "mps" else x_nC).double()
            x_nC = x_nC - x_nC.mean(0)  # HSIC does not change, its rounding does
            gram = x_nC @ x_nC.T
            found[name] = gram.fill_diagonal_(0)

        return hook

    handles = [m.register_forward_hook(keep(n)) for n, m in decoder_blocks(side.model).items()]
    try:
        side.hidden(torch.from_numpy(ids).to(side.device))
    finally:
        for handle in handles:
            handle.remove()
    return found
