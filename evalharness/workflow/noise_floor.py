"""The noise floor: what each metric shows between the reference and itself, rounded differently.

The same windows go through the reference twice: batched as in the pass, and one at a time, padded.
The second time they also go through another attention kernel, where the architecture has one: it
adds up in another order. Where the suite names a dtype, they go through a copy in that dtype as
well. Nothing else differs, so whatever a metric reads is rounding, and a limit inside it could not
tell a good candidate from the reference. The floor of a metric is the larger of what the ways show.

A signed metric is one draw near 0 there, and may read 0 by chance where rounding moves it: its
floor is the end of its interval that is further from what a model against itself should show. The
noise has one sign, so that an end of the two-sided 90% interval covers it with 95%. Where there is
no interval the floor is not measured, and gates of that metric do not pass.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from evalharness.compat.transformers import attention, attention_of, takes_attention
from evalharness.data.documents import Document
from evalharness.data.windows import Window
from evalharness.engines.out_of_memory import is_out_of_memory
from evalharness.gates.judgement import two_sided
from evalharness.metrics import REGISTRY, Estimates, Evidence
from evalharness.pair.faults import free_memory
from evalharness.pair.side import Side
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.run.directory import InMemory
from evalharness.spec.suite import NoiseFloor

PAD = 3
CONFIDENCE = 0.95  # that the noise of a signed metric is within its floor
SHAPE = "another batch shape"
KERNEL = "another batch shape and attention kernel"


@dataclass(frozen=True)
class Floor:
    """Each text metric between the reference and itself, in the metric's own unit, by its id."""

    values: dict[str, float]  # the larger of the ways
    ways: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what was asked for and not measured
    missing: dict[str, str] = field(default_factory=dict)  # by metric, why it has no floor


class Otherwise(Side):
    """The same model, computed in another batch shape and, if it has one, another kernel."""

    def __init__(self, side: Side) -> None:
        self.__dict__.update(side.__dict__)
        self.kernel = None if side.streams else _other_kernel(side.model)

    @property
    def how(self) -> str:
        """What differs, in words."""
        if self.streams:
            return f"chunks of {_other_chunk(self.model.runner.chunk)} tokens"
        return SHAPE if self.kernel is None else KERNEL

    def hidden(self, ids_BT: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """As `Side.hidden`, but for rounding."""
        if self.streams:
            places: Tensor = self.backbone(
                ids_BT, lengths=lengths, chunk=_other_chunk(self.model.runner.chunk)
            ).last_hidden_state
            return places
        width = ids_BT.shape[1]
        padding = PAD if self.alone_because(width + PAD) is None else 0
        with attention(self.model, self.kernel) if self.kernel else nullcontext():
            rows = [super(Otherwise, self).hidden(pad(row[None], (0, padding))) for row in ids_BT]
        return torch.cat(rows)[:, :width]


def _other_chunk(chunk: int) -> int:
    """Another that an engine may be fed in; a smaller one, which its buffers hold."""
    return max(1, chunk // 4) if chunk > 1 else 1


def _other_kernel(model: Any) -> str | None:
    """Eager attention instead of the model's own kernel, or the other way round; None: one only."""
    other = "sdpa" if attention_of(model) == "eager" else "eager"
    return other if takes_attention(model, other) else None


def noise_floor(
    reference: Side,
    documents: list[Document],
    windows: list[Window],
    batch_size: int,
    settings: NoiseFloor,
) -> Floor:
    """Measure the reference against itself on a sample: documents are in random order."""
    sample = _sample(windows, settings.windows)
    missing: dict[str, str] = {}

    def against(other: Side) -> dict[str, float]:
        work = TokenPass(reference, other, documents, batch_size=max(2, batch_size), probe=None)
        found = floors(Estimates(Evidence(InMemory({}, work.run(sample)))))
        missing.update({id: why for id, why in found.items() if isinstance(why, str)})
        return {id: value for id, value in found.items() if not isinstance(value, str)}

    other = Otherwise(reference)
    ways, notes = {other.how: against(other)}, []
    if settings.dtype is not None:
        found = _in_dtype(reference, settings.dtype)
        if isinstance(found, str):
            notes.append(f"noise floor in {settings.dtype} not measured: {found}")
        else:
            ways[f"computed in {settings.dtype}"] = against(found)
            del found
            free_memory(reference.device)
    for why in dict.fromkeys(missing.values()):
        names = ", ".join(id for id, reason in missing.items() if reason == why)
        notes.append(f"noise floor of {names} not measured: {why}")
    values = {id: value for id, value in _larger(ways).items() if id not in missing}
    return Floor(values, ways, notes, missing)


def _sample(windows: list[Window], count: int) -> list[Window]:
    """One window of each document first, as an interval is over documents; unprobed ones first."""
    seen: Counter[int] = Counter()
    ranked = []
    for window in windows:
        ranked.append((seen[window.document], window.probed, window.number, window))
        seen[window.document] += 1
    return sorted((found[-1] for found in sorted(ranked)[:count]), key=lambda one: one.number)


def floors(estimates: Estimates) -> dict[str, float | str]:
    """The floor of each text metric that ``estimates`` show, or why a signed one has none."""
    found: dict[str, float | str] = {}
    for id, metric in REGISTRY.items():
        best = metric.identity
        if metric.records not in ("tokens", "documents") or best is None:
            continue
        if {} not in estimates.scopes(id):
            continue
        one = estimates.estimate(id, {}, two_sided(CONFIDENCE))
        value = one.value
        if not (metric.difference or metric.signed):
            if value is not None and math.isfinite(value):
                found[id] = value
        elif value is None or one.low is None or one.high is None:
            found[id] = one.reason or "it has no interval"
        elif one.low == one.high != best:
            found[id] = "the documents of its sample show no spread"
        else:
            found[id] = max(one.low, one.high, key=lambda end: abs(end - best))
    return found


def of_both(floor: Floor, name: str, candidate: Floor) -> Floor:
    """``floor`` of the reference with that of a candidate called ``name``; the larger counts."""
    ways = {**floor.ways, **{f"{name}, {how}": found for how, found in candidate.ways.items()}}
    missing = {**candidate.missing, **floor.missing}
    values = {id: value for id, value in _larger(ways).items() if id not in missing}
    notes = [*floor.notes, *(f"{name}: {note}" for note in candidate.notes)]
    return Floor(values, ways, notes, missing)


def _larger(ways: dict[str, dict[str, float]]) -> dict[str, float]:
    """Of each metric the value furthest from what a model against itself should show."""
    found: dict[str, float] = {}
    for values in ways.values():
        for id, value in values.items():
            best = REGISTRY[id].identity or 0.0
            if id not in found or abs(value - best) > abs(found[id] - best):
                found[id] = value
    return found


def _in_dtype(side: Side, name: str) -> Side | str:
    """A copy of the reference that computes in another dtype, or why there is none."""
    if side.streams:
        return f"{side.model.engine} computes in its own way"
    own, wanted = side.model.dtype, getattr(torch, name)
    if own == wanted:
        return "it is the reference's own dtype"
    tensors = list(chain(side.model.parameters(), side.model.buffers()))
    if any(t.is_meta for t in tensors):
        return "the reference's weights are offloaded"
    if any(not t.is_floating_point() for t in side.model.parameters()):
        return "the reference's weights are packed integers"
    try:
        model = copy.deepcopy(side.model)
        for tensor in chain(model.parameters(), model.buffers()):
            # What is kept in another dtype on purpose, such as rotary frequencies, stays so.
            if tensor.dtype == own:
                tensor.data = tensor.data.to(wanted)
        return Side(replace(side.loaded, model=model))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    free_memory(side.device)
    return "a copy of the reference in it does not fit"
