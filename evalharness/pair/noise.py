"""The noise floor: what each metric shows between the reference and itself, rounding apart.

The same windows go through the reference twice: batched as in the pass, and one at a time, padded,
and through another attention kernel, which adds up in another order. Nothing else differs, so
whatever a metric reads is rounding, and a limit inside it could not tell a good candidate apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from evalharness.data.documents import Document
from evalharness.data.windows import Slot
from evalharness.metrics import REGISTRY, Estimates, Evidence
from evalharness.pair.side import Side
from evalharness.pair.tokens import TokenPass
from evalharness.run import InMemory

WINDOWS = 4  # of the suite's own, from its start: documents are in random order
PAD = 3


class Otherwise(Side):
    """The same model, computed in another batch shape and with another attention kernel."""

    def __init__(self, side: Side) -> None:
        self.__dict__.update(side.__dict__)

    def hidden(self, ids_BT: Tensor) -> Tensor:
        """As `Side.hidden`, but for rounding."""
        width = ids_BT.shape[1]
        with _other_attention(self.model):
            rows = [super(Otherwise, self).hidden(pad(row[None], (0, PAD))) for row in ids_BT]
        return torch.cat(rows)[:, :width]


@contextmanager
def _other_attention(model: Any) -> Iterator[None]:
    """Eager attention instead of the model's own kernel, or the other way round."""
    own = model.config._attn_implementation
    try:
        model.set_attn_implementation("sdpa" if own == "eager" else "eager")
    except (ValueError, AttributeError, ImportError):
        yield  # an architecture with one kernel: the batch shape alone differs
        return
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def noise_floor(
    reference: Side, documents: list[Document], slots: list[Slot], batch_size: int
) -> dict[str, float]:
    """Each text metric between the reference and itself, by metric id, in the metric's own unit."""
    sample = [s for s in slots if not s.probed][:WINDOWS] or slots[:WINDOWS]
    work = TokenPass(
        reference, Otherwise(reference), documents, batch_size=max(2, batch_size), probe=None
    )
    tables = work.measure(sample)
    estimates = Estimates(Evidence(InMemory({}, tables)))
    found: dict[str, float] = {}
    for id, metric in REGISTRY.items():
        if metric.records != "tokens" or metric.identity is None or {} not in estimates.scopes(id):
            continue
        value = estimates.estimate(id, {}, 0.95).value
        if value is not None and math.isfinite(value):
            found[id] = value
    return found
