"""A model that another engine runs, in the shape of one of transformers.

The pair asks a model for hidden states and, in chunks, for the logits of those that are scored.
Such an engine keeps its hidden states to itself, so what stands for them here is where they are:
(number of a sequence, position). The head asks the engine for the logits of such places, in the
order of the sequence, so that the logits of a whole window never exist. Nothing is computed before
they are asked for.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from evalharness.errors import RunError

REMEMBERED = 8192  # sequences whose logits may still be asked for

# What a task may say of generation without changing a greedy one: anything, or this value.
_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "pad_token_id", "use_cache")
_NEUTRAL = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
}

Logits = npt.NDArray[np.floating[Any]]


class Runner(Protocol):
    """What runs the model; `evalharness.engines.child.Child` is one."""

    chunk: int
    vocabulary: int

    def rows(self, ids: list[int], first: int, chunk: int | None = None) -> Iterator[Logits]:
        """Logits (n, V) of the positions of ``ids`` from ``first`` on, in order."""

    def extend(self, ids: list[int], *, fresh: bool) -> Logits:
        """Logits (V,) after ``ids``, which follow what was fed before unless ``fresh``."""

    def close(self) -> None:
        """End it."""


class NativeConfig(PretrainedConfig):  # type: ignore[misc]
    """What decides the numbers: engine, version, build, chunk; and what every model has."""

    model_type = "evalharness_native"

    def __init__(
        self,
        vocab_size: int = 0,
        max_position_embeddings: int = 0,
        engine: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.vocab_size, self.max_position_embeddings = vocab_size, max_position_embeddings
        self.engine = engine or {}
        super().__init__(**others)


class Sequences:
    """Token sequences by number, and the logits of their positions as the engine gives them."""

    _numbers = itertools.count(1)  # of every model: a place means nothing to another one

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._ids: OrderedDict[int, tuple[list[int], int | None]] = OrderedDict()
        self._open: tuple[int, Iterator[Logits]] | None = None
        self._at = 0  # the first position that the open sequence has not given yet
        self._left: Logits | None = None  # rows from it on that have come

    def add(self, ids: Sequence[int], chunk: int | None = None) -> int:
        """Give a sequence a number; ``chunk`` is another than the engine's own."""
        number = next(self._numbers)
        self._ids[number] = ([int(i) for i in ids], chunk)
        while len(self._ids) > REMEMBERED:
            self._ids.popitem(last=False)
        return number

    def logits(self, number: int, positions: Sequence[int]) -> Logits:
        """Logits (n, V) at ascending ``positions`` of a sequence."""
        if self._open is None or self._open[0] != number or positions[0] < self._at:
            self._start(number, positions[0])
        return np.stack([self._row(position) for position in positions])

    def close(self) -> None:
        """Stop the engine where it is."""
        if self._open is not None:
            close: Callable[[], None] | None = getattr(self._open[1], "close", None)
            self._open, self._left = None, None
            if close is not None:
                close()

    def _start(self, number: int, first: int) -> None:
        self.close()
        if number not in self._ids:
            raise RuntimeError(f"sequence {number} is not remembered")
        ids, chunk = self._ids[number]
        self._open = (number, self.runner.rows(ids, first, chunk))
        self._at, self._left = first, None

    def _row(self, position: int) -> Logits:
        assert self._open is not None
        while self._left is None or position - self._at >= len(self._left):
            if self._left is not None:
                self._at += len(self._left)
            self._left = next(self._open[1], None)
            if self._left is None:
                raise IndexError(f"sequence {self._open[0]} has no position {position}")
        self._left = self._left[position - self._at :]
        self._at = position
        row: Logits = self._left[0]
        return row


class _Backbone(nn.Module):
    """Gives places (B, T, 2) for hidden states."""

    def __init__(self, sequences: Sequences) -> None:
        super().__init__()
        self.sequences = sequences

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        lengths: Sequence[int] | None = None,
        chunk: int | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Name the rows of ``input_ids`` (B, T); of ``lengths`` where they are padded."""
        if position_ids is not None or not (attention_mask is None or bool(attention_mask.all())):
            raise TypeError("this engine takes neither masks nor positions")
        count, width = input_ids.shape
        places = torch.zeros(count, width, 2, dtype=torch.long)
        places[..., 1] = torch.arange(width)
        for row, ids in enumerate(input_ids.tolist()):
            length = width if lengths is None else lengths[row]
            places[row, :, 0] = self.sequences.add(ids[:length], chunk)
        return BaseModelOutputWithPast(last_hidden_state=places.to(input_ids.device))


class _Head(nn.Module):
    """Gives the logits (…, V) of places (…, 2)."""

    def __init__(self, sequences: Sequences, vocabulary: int) -> None:
        super().__init__()
        self.sequences = sequences
        self.out_features = vocabulary

    def forward(self, places: Tensor) -> Tensor:
        """Ask the engine sequence by sequence; last the one that the next chunk may go on with."""
        flat = places.reshape(-1, 2).tolist()
        asked: OrderedDict[int, dict[int, list[int]]] = OrderedDict()
        for row, (number, position) in enumerate(flat):
            asked.setdefault(number, {}).setdefault(position, []).append(row)
            asked.move_to_end(number)
        found = torch.empty(len(flat), self.out_features, dtype=torch.float32)
        for number, rows in asked.items():
            positions = sorted(rows)
            logits = torch.from_numpy(self.sequences.logits(number, positions))
            for logit, position in zip(logits, positions, strict=True):
                found[rows[position]] = logit
        return found.reshape(*places.shape[:-1], self.out_features).to(places.device)


class NativeModel(PreTrainedModel):  # type: ignore[misc]
    """A model without modules: places for hidden states, logits and greedy generation."""

    config_class = NativeConfig
    base_model_prefix = "backbone"
    streams = True  # its logits come in the order of a sequence, and its hidden states are places

    def __init__(self, config: NativeConfig, runner: Runner, device: torch.device) -> None:
        super().__init__(config)
        self.runner = runner
        self.sequences = Sequences(runner)
        self.backbone = _Backbone(self.sequences)
        self.head: nn.Module = _Head(self.sequences, config.vocab_size)
        self._device = device
        self.stops: frozenset[int] = frozenset()  # tokens that end a generation

    @property
    def engine(self) -> str:
        """Its name."""
        return str(self.config.engine.get("name", "this engine"))

    @property
    def device(self) -> torch.device:
        """Where logits are put."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """That of the logits."""
        return torch.float32

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.head

    def get_input_embeddings(self) -> nn.Module:
        """None that could be looked into."""
        return nn.Identity()

    def tie_weights(self, *args: Any, **options: Any) -> None:
        """Nothing: there are no weights here."""

    def forward(self, input_ids: Tensor, **options: Any) -> CausalLMOutputWithPast:
        """Logits (B, T, V) of whole rows, one after the other."""
        places = self.backbone(input_ids, **options).last_hidden_state
        return CausalLMOutputWithPast(logits=self.head(places))

    def generate(
        self,
        input_ids: Tensor,
        *,
        max_length: int,
        attention_mask: Tensor | None = None,
        stopping_criteria: Any = None,
        logits_processor: Any = None,
        do_sample: bool = False,
        **options: Any,
    ) -> Tensor:
        """Continue one row greedily, token by token, up to ``max_length`` tokens in all."""
        self._require_greedy({"do_sample": do_sample or None, **options})
        if len(input_ids) != 1:
            raise ValueError("one row at a time")
        self.sequences.close()
        row = input_ids[0] if attention_mask is None else input_ids[0][attention_mask[0].bool()]
        fed, fresh = row.tolist(), True
        while input_ids.shape[1] < max_length:
            logits = torch.from_numpy(self.runner.extend(fed, fresh=fresh))[None]
            if logits_processor is not None:
                logits = logits_processor(input_ids, logits)
            token = int(logits.argmax())
            fed, fresh = [token], False
            input_ids = torch.cat([input_ids, input_ids.new_tensor([[token]])], -1)
            if token in self.stops:
                break
            if stopping_criteria is not None and bool(stopping_criteria(input_ids, None).all()):
                break
        return input_ids

    def _require_greedy(self, options: Mapping[str, Any]) -> None:
        """Raise `RunError` for an option that would make another text of a greedy one."""
        for key, value in options.items():
            if value is None or key in _OF_SAMPLING or _NEUTRAL.get(key) == value:
                continue
            raise RunError(
                f"{self.engine} generates greedily here, and a task asks for {key}: {value}. Leave "
                "the task out of the suite, or take that out of its generation_kwargs"
            )
