"""Per-layer error: each block's and linear's output, reference against candidate, same batch.

Inputs are what each model really gets, so this is the *total* error: what the module adds and what
it inherits from those before it. Nothing is kept per token; see `probes.sums`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from evalharness.pair.lockstep import lockstep
from evalharness.pair.side import Side
from evalharness.probes.matching import PairedModule, match
from evalharness.probes.sums import LayerSums


class LayerProbe:
    """Watches both models of a pair over the batches it is given."""

    def __init__(self, reference: Side, candidate: Side, linears: bool) -> None:
        self.reference, self.candidate = reference, candidate
        pairs, self.matching = match(reference.model, candidate.model)
        self.pairs = [p for p in pairs if linears or p.kind == "block"]
        self.blocks = [p for p in self.pairs if p.kind == "block"]
        self.index = {p.name: i for i, p in enumerate(self.pairs)}
        self.head = self.index.get(reference.head_name) if reference.split else None
        self._sums: LayerSums | None = None
        self._documents: list[int] = []

    def begin(self, documents: list[int]) -> None:
        """Start a block of records about these documents."""
        self._documents = documents
        self._sums = LayerSums(
            [(p.name, p.kind, p.type) for p in self.pairs], len(documents), self.candidate.device
        )

    def table(self) -> pa.Table:
        """The records of the block."""
        assert self._sums is not None
        return self._sums.table(self._documents)

    def run(
        self, ids_ref: Tensor, ids_cand: Tensor, slots_BT: Tensor, positions_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both models' `Side.hidden` of one batch, watched.

        ``slots_BT``: index of each token's document among `begin`'s, −1 for padding;
        ``positions_BT``: its place in the window, 0 for the first.
        """
        kept: dict[str, Tensor] = {}
        inputs: dict[int, Tensor] = {}
        handles = []
        for pair in self.pairs:
            if pair.kind == "linear" and self.index[pair.name] != self.head:
                handles.append(pair.reference.register_forward_hook(_keep(kept, pair.name)))
                handles.append(
                    pair.candidate.register_forward_hook(
                        self._compare(kept, pair, slots_BT, positions_BT)
                    )
                )

        def on_reference(
            i: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
        ) -> None:
            kept[self.blocks[i].name] = _first(out)
            inputs[i] = args[0] if args else kwargs["hidden_states"]

        def on_candidate(
            i: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
        ) -> None:
            name = self.blocks[i].name
            self._add(name, kept.pop(name), _first(out), slots_BT, positions_BT, inputs.pop(i))

        try:
            return lockstep(
                lambda: self.reference.hidden(ids_ref),
                lambda: self.candidate.hidden(ids_cand),
                [(p.reference, p.candidate) for p in self.blocks],
                on_reference,
                on_candidate,
            )
        finally:
            for handle in handles:
                handle.remove()

    def add_head(self, z_ref_NV: Tensor, z_cand_NV: Tensor, slots_N: Tensor, at_N: Tensor) -> None:
        """The head's error, from logits the pass has anyway."""
        if self.head is not None:
            assert self._sums is not None
            self._sums.add(self.head, z_ref_NV[None], z_cand_NV[None], slots_N[None], at_N[None])

    def _add(
        self, name: str, ref: Tensor, cand: Tensor, slots: Tensor, at: Tensor, x: Tensor | None
    ) -> None:
        assert self._sums is not None
        self._sums.add(
            self.index[name], ref.to(cand.device), cand, slots, at,
            None if x is None else x.to(cand.device),
        )  # fmt: skip

    def _compare(
        self, kept: dict[str, Tensor], pair: PairedModule, slots: Tensor, at: Tensor
    ) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            ref = kept.pop(pair.name, None)
            out = _first(out)
            # Only outputs of one row a token can be placed; experts, say, see other rows.
            if ref is not None and ref.shape == out.shape and out.shape[:2] == slots.shape:
                self._add(pair.name, ref, out, slots, at, None)

        return hook


def _keep(kept: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, args: Any, out: Any) -> None:
        kept[name] = _first(out)

    return hook


def _first(out: Any) -> Tensor:
    tensor = out[0] if isinstance(out, tuple | list) else out
    assert isinstance(tensor, torch.Tensor)
    return tensor
