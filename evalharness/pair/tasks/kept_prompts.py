"""The reference's hidden states of task prompts, for the other candidates that will meet them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

SHARE = 0.25  # of the free memory of the machine that they may take


class KeptPrompts:
    """Hidden states by batch, in main memory, as many as fit into ``most`` bytes.

    What does not fit is computed again for each candidate, with the same result.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self.full = False
        self._states: dict[bytes, Tensor] = {}

    def get(self, key: bytes, compute: Callable[[], Tensor]) -> Tensor:
        """Return the states of a batch, (N, C), kept or just computed."""
        if key in self._states:
            return self._states[key]
        found = compute()
        size = found.numel() * found.element_size()
        if self.bytes + size <= self.most:
            self.bytes += size
            self._states[key] = found.cpu()
        else:
            self.full = True
        return found

    def __len__(self) -> int:
        """How many batches are kept."""
        return len(self._states)
