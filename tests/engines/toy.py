"""The toy of `numpy_driver` in this process, and one side of a pair made of it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

from evalharness.engines.native_model import NativeConfig, NativeModel
from tests.conftest import tiny_tokenizer
from tests.engines.numpy_driver import CONTEXT, VOCABULARY, Model, table


class InProcess:
    """What `Child` is, without a process; it counts what it is asked."""

    def __init__(self, chunk: int = 8, seed: int = 0) -> None:
        self.chunk, self.vocabulary, self.seed = chunk, VOCABULARY, seed
        self.toy = Model({"chunk": chunk, "seed": seed})
        self.begun: list[tuple[list[int], int, int]] = []  # (ids, first, chunk) of each request
        self.at_work: list[Iterator[Any]] = []
        self.closed = False

    def rows(self, ids: list[int], first: int, chunk: int | None = None) -> Iterator[Any]:
        """As `Child.rows`."""
        assert not self.at_work, "one request at a time"
        self.begun.append((ids, first, chunk or self.chunk))
        rows = self.toy.rows(ids, first, chunk or self.chunk)
        self.at_work.append(rows)
        try:
            for _, logits in rows:
                yield logits
        finally:
            self.at_work.remove(rows)

    def extend(self, ids: list[int], *, fresh: bool) -> Any:
        """As `Child.extend`."""
        assert not self.at_work, "one request at a time"
        if fresh:
            self.toy.reset()
        return self.toy.extend(ids, self.chunk)[-1]

    def close(self) -> None:
        """As `Child.close`."""
        self.closed = True


def native(seed: int = 0, chunk: int = 8, context: int = 4 * CONTEXT) -> Any:
    """A loaded side whose engine is the toy."""
    runner = InProcess(chunk, seed)
    config = NativeConfig(
        vocab_size=VOCABULARY, max_position_embeddings=context, engine={"name": "toy"}
    )
    return SimpleNamespace(
        name=f"toy{seed}",
        model=NativeModel(config, runner, torch.device("cpu")),
        tokenizer=tiny_tokenizer(),
        device=torch.device("cpu"),
    )


def logits(ids: list[int], seed: int = 0) -> torch.Tensor:
    """The toy's own (T, V), in float64."""
    return torch.from_numpy(table(ids, seed)).double()
