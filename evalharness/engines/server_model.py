"""A model behind a server, in the shape of `NativeModel`: some log-probabilities, no logits."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evalharness.engines.native_model import NativeConfig, NativeModel, Sequences

if TYPE_CHECKING:
    from evalharness.engines.completions import Completions


class _KnownHead(nn.Module):
    """Gives what is known (…, K, 2) of the tokens after places (…, 2): ids, log-probabilities."""

    def __init__(self, sequences: Sequences, vocabulary: int, known: int) -> None:
        super().__init__()
        self.sequences, self.known = sequences, known
        self.out_features = vocabulary

    def forward(self, places: Tensor) -> Tensor:
        """Ask sequence by sequence, last the one that the next chunk may go on with."""
        flat = places.reshape(-1, 2).tolist()
        found = torch.empty(len(flat), self.known, 2, dtype=torch.float64)
        asked: OrderedDict[int, list[int]] = OrderedDict()
        for row, (number, _) in enumerate(flat):
            asked.setdefault(number, []).append(row)
        for number, rows in asked.items():
            rows = sorted(rows, key=lambda row: flat[row][1])
            known = self.sequences.logits(number, [flat[row][1] for row in rows])
            found[rows] = torch.from_numpy(known)
        return found.reshape(*places.shape[:-1], self.known, 2)


class ServerModel(NativeModel):
    """Places for hidden states, and the likely tokens' log-probabilities for logits."""

    def __init__(self, config: NativeConfig, server: Completions, device: torch.device) -> None:
        super().__init__(config, server, device)
        self.top_logprobs = server.top  # of each position, beside the true token's
        self.head = _KnownHead(self.sequences, config.vocab_size, server.top + 1)
