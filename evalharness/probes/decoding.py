"""What the candidate costs to run: prefill and decode latency, and on CUDA peak memory.

A machine that warms up, slows down or is shared drifts while it is timed. So every batch is timed
four times, reference, candidate, candidate, reference, which takes a steady drift out; the next one
the other way round, which takes out one that bends and lets either side follow the other as often
(the order of Thue and Morse). A process whose number is even begins with the candidate.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from evalharness.data.windows import Window
from evalharness.errors import RunError
from evalharness.pair.side import Side
from evalharness.run import records

SideName = Literal["ref", "cand"]


class CannotDecode(RunError):  # noqa: N818 (of the model; the run goes on without)
    """A model whose decoding cannot be timed."""


def turns(batch: int, process: int) -> tuple[SideName, ...]:
    """The order in which the sides are timed on a batch, counted from 0; processes from 1."""
    ref_first = (batch.bit_count() + process - 1) % 2 == 0
    a: SideName = "ref" if ref_first else "cand"
    b: SideName = "cand" if ref_first else "ref"
    return (a, b, b, a)


@torch.inference_mode()
def time_both(
    reference: Side,
    candidate: Side,
    batches: list[list[list[int]]],
    steps: int,
    process: int,
    say: Callable[[str], None],
) -> pa.Table:
    """Seconds of each batch (B, T) on both sides, two turns together, as TIMINGS.

    Prefill is the prompts' own pass, up to the first token; decoding is ``steps`` greedy steps with
    a cache after it.
    """
    sides: dict[SideName, Side] = {"ref": reference, "cand": candidate}
    # Kernels are chosen and loaded when a shape is first met, at which prompt and cache it may be,
    # and for whoever comes first: every shape of either side is met before the clock starts.
    say("warming up")
    for batch in {(len(b), len(b[0])): b for b in batches}.values():
        for name in turns(0, process):
            _run(sides[name], batch, steps)
    rows: list[dict[str, Any]] = []
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()  # it would fall on whichever side is running
    try:
        for number, batch in enumerate(batches):
            say(f"timing batch {number + 1} of {len(batches)}")
            seconds: dict[SideName, list[float]] = {"ref": [0.0, 0.0], "cand": [0.0, 0.0]}
            for name in turns(number, process):
                for kind, one in enumerate(_run(sides[name], batch, steps)):
                    seconds[name][kind] += one
            tokens = {"prefill": 2 * len(batch) * len(batch[0]), "decode": 2 * len(batch) * steps}
            rows += [
                {
                    "kind": kind,
                    "process": process,
                    "tokens": fed,
                    "seconds_ref": seconds["ref"][at],
                    "seconds_cand": seconds["cand"][at],
                }
                for at, (kind, fed) in enumerate(tokens.items())
            ]
    finally:
        if collecting:
            gc.enable()
    return pa.Table.from_pylist(rows, schema=records.TIMINGS)


def _run(side: Side, batch: list[list[int]], steps: int) -> tuple[float, float]:
    """Seconds of the prompts' own pass, and of so many greedy steps after it."""
    ids = _ids(np.array(batch), side)
    _wait(side)
    started = time.perf_counter()
    out = side.model(input_ids=ids, use_cache=True)
    _wait(side)
    prefilled = time.perf_counter()
    for _ in range(steps):
        token = out.logits[:, -1:].argmax(-1)
        out = side.model(input_ids=token, use_cache=True, **_cache(side, out))
    _wait(side)
    return prefilled - started, time.perf_counter() - prefilled


def _cache(side: Side, out: Any) -> dict[str, Any]:
    """What ``side`` goes on from, under the name that it takes: keys and values, or a state."""
    for name in ("past_key_values", "cache_params"):
        kept = getattr(out, name, None)
        if kept is not None:
            return {name: kept}
    raise CannotDecode(
        f"{side.loaded.name}: {type(side.model).__name__} returns nothing to go on decoding from"
    )


@torch.inference_mode()
def peak_of_batch(side: Side, window: Window, batch_size: int) -> int | None:
    """Bytes at the peak of one full batch: own weights and activations; None off CUDA."""
    if side.device.type != "cuda":
        return None
    ids = _ids(window.ids, side).expand(batch_size, -1)
    _wait(side)
    torch.cuda.reset_peak_memory_stats(side.device)
    before = torch.cuda.memory_allocated(side.device)
    side.hidden(ids)
    _wait(side)
    grown = torch.cuda.max_memory_allocated(side.device) - before
    weights = side.loaded.manifest.resident_bytes
    return None if weights is None else int(grown) + weights


def _ids(tokens: np.ndarray[Any, Any], side: Side) -> torch.Tensor:
    """``tokens`` on the side's device; where they are of a larger vocabulary, others of its own.

    A clock does not mind which they are, and both sides are timed on as many.
    """
    return torch.from_numpy(tokens % side.vocab_size).to(side.device)


def _wait(side: Side) -> None:
    if side.device.type == "cuda":
        torch.cuda.synchronize(side.device)
