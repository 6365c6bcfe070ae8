"""Where a mixture-of-experts layer sends its tokens on both sides, as sums per expert and document.

A router returns, among others, the indices of the experts chosen for each token, (N, k). Compared
are the sets: how many tokens each side sends to an expert, and how many both do. In the lock-step
pass each side's router sees its own hidden states, so disagreement is what the damage of all the
layers before, and of this router, does to the routing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from evalharness.run.records import ROUTING


class RoutingSums:
    """Counts by router, document and expert; position 0 and padding are left out."""

    def __init__(self, documents: int, device: torch.device) -> None:
        self.documents, self.device = documents, device
        self._counts: dict[str, Tensor] = {}  # (3, D, E): reference, candidate, both
        self._tokens: dict[str, Tensor] = {}  # (D,)

    def add(
        self,
        name: str,
        experts: int,
        ref_Nk: Tensor,
        cand_Nk: Tensor,
        docs_BT: Tensor,
        positions_BT: Tensor,
    ) -> None:
        """Take in the experts that both sides chose for the tokens of one batch."""
        docs, at = docs_BT.reshape(-1), positions_BT.reshape(-1)
        if not len(docs) == len(ref_Nk) == len(cand_Nk):
            return
        keep = (docs >= 0) & (at > 0)
        hot_DN = torch.arange(self.documents, device=docs.device)[:, None] == docs
        hot_DN = (hot_DN & keep).double()
        a, b = (
            torch.zeros(len(docs), experts, device=docs.device, dtype=torch.float64).scatter_(
                1, chosen.to(docs.device), 1.0
            )
            for chosen in (ref_Nk, cand_Nk)
        )
        found = torch.stack([hot_DN @ a, hot_DN @ b, hot_DN @ (a * b)])
        self._counts[name] = self._counts.get(name, torch.zeros_like(found)) + found
        tokens = hot_DN.sum(1)
        self._tokens[name] = self._tokens.get(name, torch.zeros_like(tokens)) + tokens

    def table(self, documents: Sequence[int]) -> pa.Table:
        """Rows of `records.ROUTING`: routers in order, documents, experts, zeros included."""
        rows: list[dict[str, Any]] = []
        for name, counts in self._counts.items():
            tokens = self._tokens[name].long().tolist()
            ref, cand, both = counts.long().tolist()
            rows += [
                {
                    "layer": name,
                    "doc": documents[d],
                    "expert": e,
                    "tokens": tokens[d],
                    "tokens_ref": ref[d][e],
                    "tokens_cand": cand[d][e],
                    "tokens_both": both[d][e],
                }
                for d in range(self.documents)
                if tokens[d]
                for e in range(counts.shape[2])
            ]
        return pa.Table.from_pylist(rows, schema=ROUTING)
