"""What may watch the pass over texts: it runs both models itself, and sees what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa
from torch import Tensor

from evalharness.pair.matching import PairedModule
from evalharness.spec.module_results import Matching


class Records(Protocol):
    """Whatever holds records: a run's directory, or memory."""

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """All rows of one kind of record."""


class Watcher(Protocol):
    """Watches the windows that a suite samples for it, such as the layer probe."""

    @property
    def matching(self) -> Matching:
        """How the modules of the two sides were paired."""

    @property
    def described(self) -> dict[str, str]:
        """Modules that it has records of, by name: the name with the module's type."""

    def matching_after(self, run: Records) -> Matching:
        """The pairing, with what no record was made of although it was paired."""

    @property
    def blocks(self) -> Sequence[PairedModule]:
        """Blocks that have a counterpart."""

    def begin(self, documents: list[int]) -> None:
        """Start a block of records about these documents."""

    def run(
        self, ids_ref: Tensor, ids_cand: Tensor, docs_BT: Tensor, positions_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both models' `Side.hidden` of one batch.

        ``docs_BT``: index of each token's document among `begin`'s, −1 for padding;
        ``positions_BT``: its place in the window, 0 for the first.
        """

    def add_head(
        self, z_ref_NV: Tensor, z_cand_NV: Tensor, docs_N: Tensor, at_N: Tensor, h_cand_NC: Tensor
    ) -> None:
        """Both sides' logits of scored positions, with the candidate's hidden states."""

    def tables(self) -> dict[str, pa.Table]:
        """The records of the block, of every kind."""
