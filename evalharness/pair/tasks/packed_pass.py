"""Packed scoring of task requests: a prompt is fed once with all its continuations.

Replaces the scoring loop of lm-eval's HFLM, which feeds the prompt once for every choice and takes
a log-softmax over the vocabulary at every token of it. Here a document is a trie in one row, with a
mask that lets a token see its own ancestors; a few-shot prefix that documents share is kept as keys
and values; and ``lm_head`` runs on scored positions only. Both models go through a batch while it
is there: one look at both logit rows gives both sides' log-probabilities and the pair's KL,
half-range and agreement at every position where a continuation is scored.

Log-likelihoods agree with HFLM's to rounding: differences seen are below 1e-3 nats in float32. In
16 bits HFLM also rounds each log-probability to 16 bits, which this does not, and both move with
the shape of the batch. Where the packed form cannot be exact it is not used: see `packing_trial`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evalharness.compat.transformers import additive_mask, prefix_cache
from evalharness.engines.base import LoadedModel
from evalharness.pair.side import Side, chunks, default_chunk
from evalharness.pair.tasks.kept_prompts import KeptPrompts
from evalharness.pair.tasks.trie import ContextTrie, Group, pack
from evalharness.pair.tasks.unpacked import unpacked
from evalharness.pair.texts.statistics import token_statistics

Answer = tuple[float, bool]  # log-likelihood in nats; whether every token was the most likely one
Key = tuple[tuple[int, ...], tuple[int, ...]]  # token ids of context and continuation

# Of `token_statistics`, what does not depend on which continuation a position is scored for.
STATISTICS = (
    "kl",
    "kl_reverse",
    "total_variation",
    "entropy_ref",
    "entropy_cand",
    "argmax_ref",
    "argmax_cand",
    "top5_overlap",
    "max_abs",
    "half_range",
)

Read = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]  # log-probabilities; most likely?


class Batch:
    """Documents of one group as tensors, padded to the longest."""

    def __init__(self, documents: Sequence[ContextTrie], prefix: int) -> None:
        size, width = len(documents), max(len(d.tokens) for d in documents)
        ids = np.zeros((size, width), np.int64)
        positions = np.zeros((size, width), np.int64)
        allowed = np.zeros((size, 1, width, prefix + width), bool)
        allowed[..., :prefix] = True
        # A padded row attends to itself, or its softmax would be over nothing.
        allowed[:, 0, np.arange(width), prefix + np.arange(width)] = True
        places: dict[tuple[int, int], int] = {}
        first: list[int] = []  # of the tokens predicted at each place, the first
        # (request, its scored places, the tokens predicted there)
        self.reads: list[tuple[int, list[int], npt.NDArray[np.int64]]] = []
        for row, document in enumerate(documents):
            count = len(document.tokens)
            ids[row, :count], positions[row, :count] = document.tokens, document.positions
            allowed[row, 0, :count, prefix : prefix + count] |= document.ancestors()
            for request, nodes, targets in document.scored:
                at = []
                for node, target in zip(nodes, targets, strict=True):
                    place = places.setdefault((row, int(node)), len(places))
                    if place == len(first):
                        first.append(int(target))
                    at.append(place)
                self.reads.append((request, at, targets))
        self.ids, self.positions = torch.from_numpy(ids), torch.from_numpy(positions)  # (B, T)
        self.allowed = torch.from_numpy(allowed)  # (B, 1, T, P + T)
        self.rows = torch.tensor([r for r, _ in places])  # (N,) scored places, each once
        self.columns = torch.tensor([c for _, c in places])
        self.first = torch.tensor(first)  # (N,)

    def digest(self, prefix: npt.NDArray[np.int64]) -> bytes:
        """A hash of all that the hidden states of a model depend on."""
        found = hashlib.sha256(prefix.tobytes())
        for part in (self.ids, self.positions, self.allowed, self.rows, self.columns):
            found.update(repr(tuple(part.shape)).encode())
            found.update(part.numpy().tobytes())
        return found.digest()


class PackedSide:
    """One model, fed packed documents."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.side = Side(loaded)
        self.device = loaded.device
        self.dtype: torch.dtype = self.side.model.dtype
        self._prefix: Any = None
        self._unfed: npt.NDArray[np.int64] | None = None

    def begin(self, group: Group) -> None:
        """From here on, documents go on from the prefix of ``group``."""
        self.end()
        self._unfed = group.prefix if len(group.prefix) else None

    def end(self) -> None:
        """Drop the prefix."""
        self._prefix = self._unfed = None

    def _feed_prefix(self) -> None:
        """Keep the keys and values of the prefix; not before a batch needs them."""
        if self._unfed is not None:
            ids = torch.from_numpy(self._unfed)[None].to(self.device)
            self._prefix = prefix_cache(self.side.backbone, ids)
            self._unfed = None

    def hidden(self, batch: Batch) -> Tensor:
        """Hidden states (N, C) at the scored places; logits (N, V) of a model without a split."""
        if self.side.streams:
            return self._unpacked(batch)
        self._feed_prefix()
        model = self.side.backbone if self.side.split else self.side.model
        out = model(
            input_ids=batch.ids.to(self.device),
            attention_mask=additive_mask(batch.allowed.to(self.device), self.dtype),
            position_ids=batch.positions.to(self.device),
            past_key_values=self._prefix,
            use_cache=self._prefix is not None,
        )
        found: Tensor = out.last_hidden_state if self.side.split else out.logits
        return found[batch.rows.to(self.device), batch.columns.to(self.device)]

    def _unpacked(self, batch: Batch) -> Tensor:
        """Places (N, 2) of the scored nodes in plain sequences."""
        prefix: list[int] = [] if self._unfed is None else self._unfed.tolist()
        scored = list(zip(batch.rows.tolist(), batch.columns.tolist(), strict=True))
        sees = batch.allowed[:, 0, :, len(prefix) :].numpy()
        add = self.side.model.sequences.add
        places = unpacked(batch.ids.numpy(), sees, scored, prefix, add)
        return torch.tensor(places, dtype=torch.long).to(self.device)


class PairedPass:
    """Scores requests on every side at once, and remembers the answers until `forget`."""

    def __init__(
        self,
        sides: Sequence[PackedSide],
        *,
        batch_size: int,
        max_length: int,
        answered: Callable[[int], None] = lambda count: None,
        together: bool = True,
        kept: KeptPrompts | None = None,
    ) -> None:
        self.sides, self.together = sides, together
        # The first side's hidden states, in the machine's memory: other candidates meet the same
        # batches.
        self.kept = kept
        self.batch_size, self.max_length = batch_size, max_length  # documents; tokens
        # A CPU is busy with a few dozen tokens; a GPU waits for kernels until there are thousands.
        self.overhead = 4096 if any(s.device.type == "cuda" for s in sides) else 24
        device, vocabulary = sides[0].device, max(s.side.vocab_size for s in sides)
        # Scored positions whose logits are held at once.
        self.chunk = default_chunk(device, vocabulary, max(s.dtype.itemsize for s in sides))
        self.answered = answered
        self.forget()

    def forget(self) -> None:
        """Drop all answers and statistics."""
        self._known: list[dict[Key, Answer]] = [{} for _ in self.sides]
        self._rows: dict[Key, npt.NDArray[np.int64]] = {}  # of the statistics, one a scored token
        self._statistics: list[dict[str, npt.NDArray[Any]]] = []  # one dict a batch
        self._count = 0

    def answers(self, number: int, keys: Sequence[Key]) -> list[Answer]:
        """Answers of side ``number``. What the first side is asked, every side is asked with it.

        Unless the sides do not share a vocabulary (``together`` is false).
        """
        missing = list(dict.fromkeys(k for k in keys if k not in self._known[number]))
        if missing:
            asked = range(len(self.sides)) if self.together and number == 0 else [number]
            for side, found in zip(asked, self.score(missing, asked), strict=True):
                self._known[side].update(zip(missing, found, strict=True))
        return [self._known[number][k] for k in keys]

    def positions(self, asked: Sequence[tuple[int, Key]]) -> dict[str, npt.NDArray[Any]]:
        """Statistics of the pair where the requests of each item, (item, key), are scored.

        A dict of (N,) arrays: ``item``, ``position`` and `STATISTICS`. A position that requests of
        one item share counts once; the order is that of ``asked``. Empty where the sides were not
        scored together.
        """
        rows: dict[tuple[int, int], None] = {}
        for item, key in asked:
            if key in self._rows:
                rows.update(dict.fromkeys((item, int(r)) for r in self._rows[key]))
        if not rows:
            return {}
        at = np.array([r for _, r in rows])
        return {"item": np.array([i for i, _ in rows])} | {
            name: np.concatenate([s[name] for s in self._statistics])[at]
            for name in ("position", *STATISTICS)
        }

    @torch.inference_mode()
    def score(self, requests: Sequence[Key], asked: Sequence[int]) -> list[list[Answer]]:
        """Answers to ``requests`` of each side ``asked``, in order."""
        sides = [self.sides[number] for number in asked]
        found: list[list[Answer]] = [[(0.0, False)] * len(requests) for _ in sides]
        for group in pack(requests, self.max_length):
            for side in sides:
                side.begin(group)
            for documents in group.batches(self.batch_size, self.overhead):
                batch = Batch(documents, len(group.prefix))
                hidden = [self._hidden(side, batch, group) for side in sides]
                for answers, read in zip(found, self._batch(batch, sides, hidden), strict=True):
                    for (request, _, _), answer in zip(batch.reads, read, strict=True):
                        answers[request] = answer
                if len(sides) > 1:
                    for request, places, _ in batch.reads:
                        self._rows[requests[request]] = self._count + np.array(places, np.int64)
                    self._count += len(batch.rows)
                self.answered(len(batch.reads) * len(sides))
        for side in sides:
            side.end()
        return found

    def _hidden(self, side: PackedSide, batch: Batch, group: Group) -> Tensor:
        first = side is self.sides[0]
        if self.kept is None or not first or not side.side.split or side.side.streams:
            return side.hidden(batch)
        key = batch.digest(group.prefix)
        return self.kept.get(key, lambda: side.hidden(batch)).to(side.device)

    def _batch(
        self, batch: Batch, sides: Sequence[PackedSide], hidden: Sequence[Tensor]
    ) -> list[list[Answer]]:
        """Answers of each of ``sides`` to the requests of ``batch.reads``."""
        place = np.concatenate([np.array(a, np.int64) for _, a, _ in batch.reads])
        target = np.concatenate([t for _, _, t in batch.reads])
        log_p = np.zeros((len(sides), len(place)))
        top = np.zeros((len(sides), len(place)), bool)
        for piece in chunks(len(batch.rows), self.chunk):
            logits = [s.side.logits(h[piece]) for s, h in zip(sides, hidden, strict=True)]
            here = np.flatnonzero((place >= piece.start) & (place < piece.stop))
            row, token = place[here] - piece.start, target[here]
            if len(sides) > 1:
                reads = self._pair(logits[0], logits[1], batch, piece, row, token)
            else:
                reads = [_read(logits[0], row, token)]
            for number, read in enumerate(reads):
                log_p[number, here], top[number, here] = read
        starts = np.cumsum([0, *(len(a) for _, a, _ in batch.reads)])[:-1]
        return [
            list(zip(map(float, np.add.reduceat(a, starts)), map(bool, b), strict=True))
            for a, b in zip(log_p, np.logical_and.reduceat(top, starts, axis=1), strict=True)
        ]

    def _pair(
        self,
        z_ref_NV: Tensor,
        z_cand_NV: Tensor,
        batch: Batch,
        piece: slice,
        row: npt.NDArray[np.int64],
        token: npt.NDArray[np.int64],
    ) -> list[Read]:
        """What `_read` gives for each side, and the pair's statistics, which are kept."""
        device = z_cand_NV.device
        z_ref_NV = z_ref_NV.to(device)
        first = batch.first[piece].to(device)
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            found = token_statistics(z_ref_NV, z_cand_NV, first)
        bad = (found["bad_ref"] | found["bad_cand"]).cpu().numpy()
        kept: dict[str, npt.NDArray[Any]] = {
            "position": batch.positions[batch.rows[piece], batch.columns[piece]].numpy() + 1
        }
        for name in STATISTICS:
            values = found[name].cpu().numpy()
            if values.dtype.kind == "f":
                values = np.where(bad, np.float32(np.nan), values)
            kept[name] = values
        self._statistics.append(kept)
        i, t = torch.from_numpy(row).to(device), torch.from_numpy(token).to(device)
        reads = []
        for side, z_NV in (("ref", z_ref_NV), ("cand", z_cand_NV)):
            # The statistics know log Σ exp z by way of one token; other tokens' follow from it.
            known = z_NV.gather(1, first[:, None])[:, 0].double()
            total = known + found[f"nll_{side}"].double()
            log_p = (z_NV[i, t].double() - total[i]).cpu().numpy()
            top = (found[f"argmax_{side}"][i] == t).cpu().numpy()
            odd = np.flatnonzero(found[f"bad_{side}"].cpu().numpy()[row])
            if len(odd):  # a logit of −inf may be meant: whatever torch makes of it
                log_p[odd], top[odd] = _read(z_NV, row[odd], token[odd])
            reads.append((log_p, top))
        return reads


def _read(logits_NV: Tensor, row: npt.NDArray[np.int64], token: npt.NDArray[np.int64]) -> Read:
    """Log-probability of ``token`` in ``row`` of the logits, and whether it is the likeliest.

    On a CPU a few rows at a time, which stay in its cache: 50 MB at once take five times as long.
    """
    log_p, top = np.zeros(len(row)), np.zeros(len(row), bool)
    for piece in chunks(len(logits_NV), 16 if logits_NV.device.type == "cpu" else 256):
        here = np.flatnonzero((row >= piece.start) & (row < piece.stop))
        z = logits_NV[piece].float()
        i = torch.from_numpy(row[here] - piece.start).to(z.device)
        t = torch.from_numpy(token[here]).to(z.device)
        log_p[here] = z.log_softmax(-1)[i, t].double().cpu().numpy()
        top[here] = (z.argmax(-1)[i] == t).cpu().numpy()
    return log_p, top
