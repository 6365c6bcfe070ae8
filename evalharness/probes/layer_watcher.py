"""Per-layer error, taken apart: what a module adds, and what it inherits from those before it.

With clean input x, the candidate's own input x̃, reference f and candidate g of one block:

    total         g(x̃) − f(x)      what a debugger shows; late blocks look worst whoever is to blame
    own           g(x̃) − f(x̃)      what this block adds
    inherited     f(x̃) − f(x)      what it was handed; total = own + inherited, exactly
    own_on_clean  g(x) − f(x)      what it would add were it the only one compressed

Linear modules have total and own, as have the fused experts and the router of a mixture-of-experts
layer (`probes.routing` says where it sends the tokens). Own needs inputs of one width. f(x̃) is the
reference's block called once more, inside the same lock-step, with the arguments (positions, mask)
that the reference itself gave it: no second pass, and nothing kept but one block's activations.
Nothing is kept per token; see `probes.sums`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from evalharness.compat.transformers import (
    chosen_experts,
    hidden_argument,
    hidden_result,
    scored_experts,
    with_hidden_argument,
)
from evalharness.errors import RunError
from evalharness.pair.lockstep import lockstep
from evalharness.pair.matching import PairedModule, match
from evalharness.pair.side import Side
from evalharness.pair.watcher import Records
from evalharness.probes.block_calls import like, same_input, there
from evalharness.probes.channels import ChannelSums
from evalharness.probes.routing import RoutingSums
from evalharness.probes.sums import LayerSums
from evalharness.spec.module_results import Matching

BLOCKS_ONLY = ("inherited", "own_on_clean")
REHEARSED = 16  # tokens of the first batch's first window


class LayerWatcher:
    """Watches both models of a pair over the batches it is given."""

    def __init__(
        self, reference: Side, candidate: Side, linears: bool, errors: Sequence[str] = ("total",)
    ) -> None:
        self.reference, self.candidate, self.errors = reference, candidate, tuple(errors)
        pairs, self.matching = match(reference.model, candidate.model)
        self.pairs = [p for p in pairs if linears or p.kind == "block"]
        self.blocks = [p for p in self.pairs if p.kind == "block"]
        self.linears = [p for p in self.pairs if p.kind != "block"]
        heads = [p for p in self.linears if reference.head in p.references]
        self.head = heads[0] if heads and reference.split and candidate.split else None
        # Modules that write into a tensor they were given, or whose output is written into later.
        self.in_place: set[str] = set()
        self._rehearsed = False
        self._sums: dict[str, LayerSums] = {}
        self._index: dict[str, dict[str, int]] = {}
        self._channels = ChannelSums(candidate.device)
        self._batches = 0  # of the block of records so far; the worst channels are of the first
        self.routing = RoutingSums(0, candidate.device)
        self._documents: list[int] = []

    @property
    def described(self) -> dict[str, str]:
        """Modules that it has records of, by name: the name with the module's type."""
        return {pair.name: f"{pair.name} ({pair.type})" for pair in self.pairs}

    def matching_after(self, run: Records) -> Matching:
        """The pairing, with the modules that no token of the pass reached."""
        seen = set(run.table("layers", ["layer"])["layer"].to_pylist())
        missing = [text for name, text in self.described.items() if name not in seen]
        return self.matching.model_copy(update={"not_measured": missing})

    def begin(self, documents: list[int]) -> None:
        """Start a block of records about these documents."""
        self._documents = documents
        for error in self.errors:
            pairs = self.blocks if error in BLOCKS_ONLY else self.pairs
            self._index[error] = {p.name: i for i, p in enumerate(pairs)}
            modules = [(p.name, p.kind, p.type) for p in pairs]
            self._sums[error] = LayerSums(modules, len(documents), self.candidate.device, error)
        self._channels = ChannelSums(self.candidate.device)
        self._batches = 0
        self.routing = RoutingSums(len(documents), self.candidate.device)

    def tables(self) -> dict[str, pa.Table]:
        """The records of the block, of every kind."""
        return {
            "layers": self.table(),
            "channels": self._channels.table(),
            "routing": self.routing.table(self._documents),
        }

    def table(self) -> pa.Table:
        """The records of the block."""
        return pa.concat_tables([s.table(self._documents) for s in self._sums.values()])

    def run(
        self, ids_ref: Tensor, ids_cand: Tensor, docs_BT: Tensor, positions_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both models' `Side.hidden` of one batch, watched.

        ``docs_BT``: index of each token's document among `begin`'s, −1 for padding;
        ``positions_BT``: its place in the window, 0 for the first.
        """
        if not self._rehearsed:
            # Which modules write in place is found out on a few tokens: it takes a copy of every
            # activation, which a whole batch may have no room for.
            self._rehearsed = True
            few = (slice(1), slice(REHEARSED))
            self._watched(
                ids_ref[few], ids_cand[few], docs_BT[few], positions_BT[few], rehearsal=True
            )
        self._batches += 1
        return self._watched(ids_ref, ids_cand, docs_BT, positions_BT)

    def _watched(
        self,
        ids_ref: Tensor,
        ids_cand: Tensor,
        docs_BT: Tensor,
        positions_BT: Tensor,
        rehearsal: bool = False,
    ) -> tuple[Tensor, Tensor]:
        batch = _Passage(self, docs_BT, positions_BT, rehearsal)
        with batch.hooks():
            return lockstep(
                lambda: self.reference.hidden(ids_ref),
                lambda: self.candidate.hidden(ids_cand),
                [(p.reference, p.candidate) for p in self.blocks],
                batch.on_reference,
                batch.on_candidate,
            )

    def add_head(
        self, z_ref_NV: Tensor, z_cand_NV: Tensor, docs_N: Tensor, at_N: Tensor, h_cand_NC: Tensor
    ) -> None:
        """The head's errors, from logits and hidden states that the pass has anyway."""
        if self.head is None:
            return
        docs, at = docs_N[None], at_N[None]
        self.add("total", self.head.name, z_ref_NV[None], z_cand_NV[None], docs, at)
        if "own" in self.errors and same_input(self.head):
            mine = self.reference.logits(like(h_cand_NC, self.reference.head))
            self.add("own", self.head.name, mine[None], z_cand_NV[None], docs, at)

    def add(
        self,
        error: str,
        name: str,
        ref: Tensor,
        cand: Tensor,
        docs: Tensor,
        at: Tensor,
        x: Tensor | None = None,
    ) -> None:
        """Take in one module's outputs for one kind of error, if it is asked for."""
        if error in self._sums:
            self._sums[error].add(self._index[error][name], ref, cand, docs, at, x)
            if self._batches == 1:
                self._channels.add(error, name, ref, cand, docs, at)


@dataclass
class _Clean:
    """What the reference's block was given and made of it."""

    index: int
    x: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Tensor


class _Passage:
    """One batch's passage through both models."""

    def __init__(self, probe: LayerWatcher, docs_BT: Tensor, at_BT: Tensor, check: bool) -> None:
        self.probe, self.docs, self.at = probe, docs_BT, at_BT
        self.check = check  # look for modules that write in place, and record nothing
        self.calling = False  # a module is being called from here: its hooks keep quiet
        self.clean: _Clean | None = None
        self.inputs: dict[tuple[str, str], Tensor] = {}
        # Outputs that wait for their counterpart: a module may be called more than once.
        self.parts: dict[tuple[str, str, int], deque[Tensor]] = defaultdict(deque)
        self.kept: dict[str, deque[tuple[Tensor, Tensor | None]]] = defaultdict(deque)
        self.own: dict[str, deque[Tensor]] = defaultdict(deque)
        self.routed: dict[str, deque[Tensor]] = defaultdict(deque)

    @contextmanager
    def hooks(self) -> Iterator[None]:
        handles = []
        for pair in self.probe.blocks:
            for side, block in (("reference", pair.reference), ("candidate", pair.candidate)):
                handles.append(
                    block.register_forward_pre_hook(
                        self._quietly(self._before_block(side, pair)), with_kwargs=True
                    )
                )
        for pair in self.probe.linears:
            if pair is self.probe.head:
                continue
            for i, module in enumerate(pair.references):
                handles.append(
                    module.register_forward_hook(self._quietly(self._after_reference(pair, i)))
                )
            if "own" in self.probe.errors and same_input(pair):
                handles.append(
                    pair.candidate.register_forward_pre_hook(
                        self._quietly(self._before_candidate(pair)), with_kwargs=True
                    )
                )
            for i, module in enumerate(pair.candidates):
                handles.append(
                    module.register_forward_hook(self._quietly(self._after_candidate(pair, i)))
                )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _quietly(self, hook: Callable[..., None]) -> Callable[..., None]:
        def guarded(*args: Any) -> None:
            if not self.calling:
                hook(*args)

        return guarded

    def _call(self, module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        self.calling = True
        try:
            return hidden_result(module(*args, **kwargs))
        finally:
            self.calling = False

    # -- blocks

    def _before_block(self, side: str, pair: PairedModule) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = hidden_argument(args, kwargs)
            copy = self.check or pair.name in self.probe.in_place
            self.inputs[side, pair.name] = x.clone() if copy else x

        return hook

    def _input(self, side: str, pair: PairedModule, x_after: Tensor) -> Tensor:
        """The block's input as it was before the block ran."""
        x = self.inputs.pop((side, pair.name))
        if self.check and not torch.equal(x, x_after):
            self.probe.in_place.add(pair.name)
        return x

    def on_reference(
        self, i: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        x = self._input("reference", self.probe.blocks[i], hidden_argument(args, kwargs))
        self.clean = _Clean(i, x, args, kwargs, hidden_result(out))

    def on_candidate(
        self, i: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        pair, clean, probe = self.probe.blocks[i], self.clean, self.probe
        if clean is None or clean.index != i:
            at = "nothing" if clean is None else probe.blocks[clean.index].name
            raise RunError(
                f"the two models do not run the same sequence of blocks (the candidate ran "
                f"{pair.name}, the reference {at}): take `layers` out of the suite's probes"
            )
        self.clean = None
        y = hidden_result(out)
        x_cand = self._input("candidate", pair, hidden_argument(args, kwargs))
        self._add("total", pair, clean.out, y, clean.x)
        if "own" in probe.errors or "inherited" in probe.errors:
            x_there = like(x_cand, clean.x)
            given = with_hidden_argument(clean.args, clean.kwargs, self._given(x_there, pair))
            again = self._call(pair.reference, *given[0], **given[1])
            self._add("own", pair, again, y, x_there)
            self._add("inherited", pair, clean.out, again, clean.x)
        if "own_on_clean" in probe.errors:
            x_here = like(clean.x, x_cand)
            given = with_hidden_argument(args, kwargs, self._given(x_here, pair))
            alone = self._call(pair.candidate, *given[0], **given[1])
            self._add("own_on_clean", pair, clean.out, alone, clean.x)

    def _given(self, x: Tensor, pair: PairedModule) -> Tensor:
        return x.clone() if self.check or pair.name in self.probe.in_place else x

    # -- linears

    def _after_reference(self, pair: PairedModule, i: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            y = self._joined("reference", pair, i, len(pair.references), hidden_result(out))
            if y is None:
                return
            indices = chosen_experts(out) if pair.kind == "router" else None
            if indices is not None:
                self.routed[pair.name].append(indices)
            if pair.name in self.probe.in_place:
                y = y.clone()
            self.kept[pair.name].append((y, y.clone() if self.check else None))

        return hook

    def _before_candidate(self, pair: PairedModule) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            # Before the candidate runs, which may write into its input.
            outs = [
                self._call(
                    m, *(there(a, m) for a in args), **{k: there(v, m) for k, v in kwargs.items()}
                )
                for m in pair.references
            ]
            self.own[pair.name].append(outs[0] if len(outs) == 1 else torch.cat(outs, -1))

        return hook

    def _after_candidate(self, pair: PairedModule, i: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            y = self._joined("candidate", pair, i, len(pair.candidates), hidden_result(out))
            if y is None:
                return
            indices, width = (
                (chosen_experts(out), scored_experts(out))
                if pair.kind == "router"
                else (None, None)
            )
            if indices is not None and width is not None and self.routed[pair.name]:
                theirs = self.routed[pair.name].popleft()
                if not self.check:
                    self.probe.routing.add(pair.name, width, theirs, indices, self.docs, self.at)
            mine, kept = self.own[pair.name], self.kept[pair.name]
            if mine:
                self._add("own", pair, mine.popleft(), y)
            if kept:
                ref, copy = kept.popleft()
                if copy is not None and not torch.equal(ref, copy):
                    self.probe.in_place.add(pair.name)
                    ref = copy
                self._add("total", pair, ref, y)

        return hook

    def _joined(
        self, side: str, pair: PairedModule, i: int, members: int, out: Tensor
    ) -> Tensor | None:
        """The output, or the concatenation of a fused group's once the last of them is there."""
        if members == 1:
            return out
        waiting = [self.parts[side, pair.name, k] for k in range(members)]
        waiting[i].append(out)
        return torch.cat([w.popleft() for w in waiting], -1) if all(waiting) else None

    def _add(
        self, error: str, pair: PairedModule, ref: Tensor, cand: Tensor, x: Tensor | None = None
    ) -> None:
        if self.check:
            return
        # Only outputs of one row a token can be placed; a routed expert's rows are others.
        if ref.dim() == cand.dim() == 2 and len(ref) == self.docs.numel():
            ref, cand = (t.view(*self.docs.shape, -1) for t in (ref, cand))
        if ref.shape == cand.shape and cand.shape[:2] == self.docs.shape and cand.dim() == 3:
            self.probe.add(error, pair.name, ref, cand, self.docs, self.at, x)
