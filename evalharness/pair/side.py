"""One side of the pair, split into backbone and head.

The head runs on chunks of scored positions only, so that the logits of a whole window never exist.
Whether head(backbone(x)) really is the model's output (some models scale or cap their logits) is
tried once at the start; where it is not, the model's own forward is used whole.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from evalharness.compat.transformers import vocabulary_size
from evalharness.data.windows import Window, padded
from evalharness.engines.base import LoadedModel
from evalharness.engines.device_memory import keep_freed_memory
from evalharness.engines.out_of_memory import is_out_of_memory
from evalharness.errors import InputError
from evalharness.pair.rows_alone import alone_because

MOST_CHUNK = 1024  # scored positions
MASKED = -1e4  # the logit of a row of the vocabulary that is never said
LOGITS_CPU = 256 << 20  # bytes of both sides' logits


class Side:
    """Runs one model: `hidden` for a batch, then `logits` chunk by chunk."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.model: Any = loaded.model
        self.device = loaded.device
        if self.device.type == "cpu":
            keep_freed_memory()
        head = self.model.get_output_embeddings()
        if head is None:
            raise InputError(
                f"{loaded.name}: {type(self.model).__name__} has no language-model head",
                key="model.path",
                remedy="Give a causal language model.",
            )
        self.head: nn.Module = head
        self.backbone: nn.Module = self.model.base_model
        self.vocab_size = _head_rows(head, self.model)
        # From this row on the vocabulary is padding that the model masks with −∞; None: it is not.
        self.masked_from: int | None = None
        # Its hidden states are places in a sequence: worth nothing once the engine is gone.
        self.streams = bool(getattr(self.model, "streams", False))
        # Of the likeliest tokens, which a server gives instead of logits; 0: it has logits.
        self.top_logprobs = int(getattr(self.model, "top_logprobs", 0))
        self.split = bool(self.top_logprobs) or (
            self._head_is_exact() and self.backbone is not self.model
        )
        self.released = False

    @property
    def head_name(self) -> str:
        """The head's name in the model."""
        return next(str(n) for n, m in self.model.named_modules() if m is self.head)

    def ids(self, windows: Sequence[Window]) -> Tensor:
        """Token ids of ``windows`` (B, T) on the side's device, padded on the right with 0."""
        return torch.from_numpy(padded(windows)).to(self.device)

    def hidden(self, ids_BT: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Final hidden states (B, T, C); or, for a model that cannot be split, logits (B, T, V).

        ``lengths`` : tokens of each row, where rows are padded; padding may then be left out.
        """
        if self.streams:
            places: Tensor = self.backbone(ids_BT, lengths=lengths).last_hidden_state
            return places
        if self.split:
            out: Tensor = self.backbone(input_ids=ids_BT, use_cache=False).last_hidden_state
            return out
        logits: Tensor = self.model(input_ids=ids_BT, use_cache=False).logits
        return logits

    def alone_because(self, longest: int) -> str | None:
        """Why rows of up to ``longest`` tokens must be fed alone and unpadded; None: they need not.

        Of a side whose backbone is released it knows what was asked before.
        """
        return alone_because(self.loaded, longest)

    def hidden_alone(self, ids_BT: Tensor, lengths: Sequence[int]) -> Tensor:
        """As `hidden`, of rows fed one at a time and unpadded; 0 in the padding."""
        rows = [self.hidden(ids[None, :n])[0] for ids, n in zip(ids_BT, lengths, strict=True)]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """Logits (N, V) of N positions of `hidden`; (N, K, 2) of a server: `partial_statistics`."""
        out: Tensor = self.head(hidden_NC) if self.split else hidden_NC
        return self.finite_padding(out)

    def finite_padding(self, logits_NV: Tensor) -> Tensor:
        """``logits_NV`` with a number for −∞ where the vocabulary is padding.

        Of probability 0 either way; but the difference of two infinities is no number.
        """
        if self.masked_from is None:
            return logits_NV
        real, padding = logits_NV[:, : self.masked_from], logits_NV[:, self.masked_from :]
        return torch.cat([real, padding.masked_fill(padding == -inf, MASKED)], -1)

    def head_on(self, device: torch.device) -> nn.Module | None:
        """A copy of the head on another device; None where there is none to make.

        Hidden states are quick to move, logits are not: 4 kB against 256 kB a token for Llama-3 1B.
        A quantised head, whose module may be bound to its device, is not copied.
        """
        if not self.split or device == self.device or self.masked_from is not None:
            return None
        if type(self.head) is not nn.Linear or self.head.weight.is_meta:
            return None
        try:
            return copy.deepcopy(self.head).to(device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    def release_backbone(self) -> None:
        """Let go of every weight but the head's: from here on only `logits` works."""
        kept = {id(p) for p in self.head.parameters()}
        for parameter in self.backbone.parameters():
            if id(parameter) not in kept:
                parameter.data = torch.empty(0, dtype=parameter.dtype, device=parameter.device)
        self.released = True

    def release(self) -> None:
        """Let go of every weight: from here on nothing works.

        A tensor of a library's own kind, which takes no other data, stays.
        """
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            with suppress(RuntimeError, TypeError, NotImplementedError):
                tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        if self.streams:
            self.model.runner.close()
        self.released = True

    @torch.inference_mode()
    def _head_is_exact(self) -> bool:
        ids = torch.arange(8, device=self.device)[None] % self.vocab_size
        try:
            whole = self.model(input_ids=ids, use_cache=False).logits
        except (AttributeError, TypeError, RuntimeError):
            return False
        self.masked_from = self._masked(whole)
        try:
            hidden = self.backbone(input_ids=ids, use_cache=False).last_hidden_state
            split = self.head(hidden)
        except (AttributeError, TypeError, RuntimeError):
            return False
        return split.shape == whole.shape and torch.equal(split, whole.to(split.dtype))

    def _masked(self, logits_BTV: Tensor) -> int | None:
        rows = len(self.loaded.tokenizer)
        padding = logits_BTV[..., rows:]
        return rows if padding.numel() and bool((padding == -inf).any()) else None


def _head_rows(head: nn.Module, model: Any) -> int:
    rows = getattr(head, "out_features", None)
    return int(rows if rows is not None else vocabulary_size(model))


def chunks(total: int, size: int) -> Iterator[slice]:
    """``range(total)`` in slices of ``size``."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def default_chunk(device: torch.device, vocabulary: int = 0, number: int = 4) -> int:
    """Scored positions whose logits exist at a time: 1,024, on a CPU fewer where those are large.

    A head of few rows is slow: SmolLM2's takes 104, 54 or 45 µs a token for 256, 512 or 1,024.
    ``number``: bytes of a logit.
    """
    chunk = MOST_CHUNK
    while device.type == "cpu" and chunk > 128 and 2 * chunk * vocabulary * number > LOGITS_CPU:
        chunk //= 2
    return chunk
