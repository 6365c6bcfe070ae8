"""Task scoring on a shared prefix: a prompt is fed once with all its continuations.

Replaces the scoring loop of lm-eval's HFLM, which feeds the prompt once for every choice and computes
a row of log-softmax over the vocabulary for every token of it. Here a document is a trie in one row,
with a mask that lets a token see its own ancestors; a few-shot prefix that documents share is kept as
keys and values; and ``lm_head`` runs on scored positions only. Both models go through a batch while
it is there, so the logits of both sides can be compared in the same pass (``on_logits``).

Log-likelihoods agree with HFLM's to rounding: seen differences are below 1e-4 nats in float32. In
16 bits HFLM rounds each log-probability to 16 bits, which this does not, and both move with the batch.
Where the packed form cannot be exact it is not used, and the reason is given: see `unsupported`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from evalharness.models.load import LoadedModel
from evalharness.pair.lm import Answered, LoadedLM
from evalharness.pair.side import Side, chunks
from evalharness.pair.trie import Document, Group, Request, pack

Answer = tuple[float, bool]  # log-likelihood in nats; whether every token was the most likely one
OnLogits = Callable[[Tensor, Tensor], None]  # reference and candidate logits (N, V), chunk by chunk
Key = tuple[tuple[int, ...], tuple[int, ...]]


class PackedSide:
    """One model, fed packed documents."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.side = Side(loaded)
        self.device = loaded.device
        self.dtype: torch.dtype = self.side.model.dtype
        self._cache: Any = None

    def begin(self, group: Group) -> None:
        """Feed the prefix that the documents of ``group`` share, and keep its keys and values."""
        self._cache = None
        if len(group.prefix):
            cache = DynamicCache()
            ids = torch.from_numpy(group.prefix)[None].to(self.device)
            self.side.backbone(input_ids=ids, past_key_values=cache, use_cache=True)
            self._cache = DynamicCache()
            self._cache.layers = [_Shared(layer) for layer in cache.layers]

    def hidden(self, batch: Batch) -> Tensor:
        """Final hidden states (B, T, C), or logits where the model cannot be split."""
        model = self.side.backbone if self.side.split else self.side.model
        allowed = batch.allowed.to(self.device)
        mask = torch.zeros(allowed.shape, dtype=self.dtype, device=self.device)
        mask.masked_fill_(~allowed, torch.finfo(self.dtype).min)
        out = model(
            input_ids=batch.ids.to(self.device),
            attention_mask=mask,  # (B, 1, T, P + T): taken as it is
            position_ids=batch.positions.to(self.device),
            past_key_values=self._cache,
            use_cache=self._cache is not None,
        )
        found: Tensor = out.last_hidden_state if self.side.split else out.logits
        return found


class _Shared(DynamicLayer):  # type: ignore[misc]  # transformers' types are skipped
    """The prefix's keys and values, (1, heads, P, dim), in front of whatever batch asks."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.keys, self.values = layer.keys, layer.values
        self.dtype, self.device = layer.keys.dtype, layer.keys.device
        self.is_initialized = True

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Prefix and batch together; nothing is stored, so the next batch finds the prefix."""
        size = (keys.shape[0], -1, -1, -1)
        return (
            torch.cat([self.keys.expand(size), keys], dim=-2),
            torch.cat([self.values.expand(size), values], dim=-2),
        )


class Batch:
    """Documents of one group as tensors, padded to the longest."""

    def __init__(self, documents: Sequence[Document], prefix: int) -> None:
        size, width = len(documents), max(len(d.tokens) for d in documents)
        ids = np.zeros((size, width), np.int64)
        positions = np.zeros((size, width), np.int64)
        allowed = np.zeros((size, 1, width, prefix + width), bool)
        allowed[..., :prefix] = True
        # A padded row attends to itself, or its softmax would be over nothing.
        allowed[:, 0, np.arange(width), prefix + np.arange(width)] = True
        places: dict[tuple[int, int], int] = {}
        self.reads: list[tuple[int, list[int], np.ndarray[Any, Any]]] = []
        for row, document in enumerate(documents):
            count = len(document.tokens)
            ids[row, :count], positions[row, :count] = document.tokens, document.positions
            allowed[row, 0, :count, prefix : prefix + count] |= document.ancestors()
            for request, nodes, targets in document.scored:
                at = [places.setdefault((row, int(n)), len(places)) for n in nodes]
                self.reads.append((request, at, targets))
        self.ids, self.positions = torch.from_numpy(ids), torch.from_numpy(positions)
        self.allowed = torch.from_numpy(allowed)
        self.rows = torch.tensor([r for r, _ in places])  # (N,) scored places, each once
        self.columns = torch.tensor([c for _, c in places])


class PairedPass:
    """Scores requests on both sides at once, and remembers the answers until `forget`."""

    def __init__(
        self,
        sides: Sequence[LoadedModel],
        *,
        batch_size: int,
        max_length: int,
        answered: Answered = lambda count: None,
        on_logits: OnLogits | None = None,
    ) -> None:
        self.sides = [PackedSide(s) for s in sides]
        self.batch_size, self.max_length = batch_size, max_length
        self.answered, self.on_logits = answered, on_logits
        self._known: list[dict[Key, Answer]] = [{} for _ in sides]

    def forget(self) -> None:
        """Drop all answers."""
        for known in self._known:
            known.clear()

    def answers(self, number: int, requests: Sequence[Request]) -> list[Answer]:
        """Answers of side ``number``; what is not known yet is scored on every side."""
        keys = [(tuple(c), tuple(k)) for c, k in requests]
        missing = list(dict.fromkeys(k for k in keys if k not in self._known[number]))
        if missing:
            for known, found in zip(self._known, self.score(missing), strict=True):
                known.update(zip(missing, found, strict=True))
        return [self._known[number][k] for k in keys]

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> list[list[Answer]]:
        """Log-likelihoods of ``requests``, for each side in order."""
        found: list[list[Answer]] = [[(0.0, False)] * len(requests) for _ in self.sides]
        for group in pack(requests, self.max_length):
            for side in self.sides:
                side.begin(group)
            for documents in group.batches(self.batch_size):
                batch = Batch(documents, len(group.prefix))
                for answers, read in zip(found, self._batch(batch), strict=True):
                    for (request, _, _), answer in zip(batch.reads, read, strict=True):
                        answers[request] = answer
                self.answered(len(batch.reads) * len(self.sides))
        return found

    def _batch(self, batch: Batch) -> list[list[Answer]]:
        hidden = []
        for side in self.sides:
            rows, columns = batch.rows.to(side.device), batch.columns.to(side.device)
            hidden.append(side.hidden(batch)[rows, columns])  # (N, C)
        at = np.concatenate([np.array(a, np.int64) for _, a, _ in batch.reads])
        tokens = np.concatenate([t for _, _, t in batch.reads])
        log_p = [np.zeros(len(at)) for _ in self.sides]
        top = [np.zeros(len(at), bool) for _ in self.sides]
        for piece in chunks(len(batch.rows), 256):
            logits = [
                s.side.logits(h[piece]).float() for s, h in zip(self.sides, hidden, strict=True)
            ]
            if self.on_logits is not None:
                self.on_logits(logits[0], logits[-1].to(logits[0].device))
            inside = np.flatnonzero((at >= piece.start) & (at < piece.stop))
            place = torch.from_numpy(at[inside] - piece.start)
            token = torch.from_numpy(tokens[inside])
            for z, log_p_side, top_side in zip(logits, log_p, top, strict=True):
                i, t = place.to(z.device), token.to(z.device)
                log_p_side[inside] = (z[i, t] - z.logsumexp(-1)[i]).double().cpu().numpy()
                top_side[inside] = (z.argmax(-1)[i] == t).cpu().numpy()
        ends = np.cumsum([len(a) for _, a, _ in batch.reads])
        return [
            [
                (float(lp.sum()), bool(tp.all()))
                for lp, tp in zip(np.split(a, ends[:-1]), np.split(b, ends[:-1]), strict=True)
            ]
            for a, b in zip(log_p, top, strict=True)
        ]


class PackedLM(LoadedLM):
    """lm-eval's model for one side, whose log-likelihoods come from the paired pass."""

    def __init__(self, loaded: LoadedModel, paired: PairedPass, number: int, **options: Any) -> None:
        super().__init__(loaded, **options)
        self._paired, self._number = paired, number

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
        return self._paired.answers(self._number, [(c, k) for _, c, k in requests])
