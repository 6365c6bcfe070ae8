"""What the candidate costs to run: decode latency, and on CUDA peak memory, side by side.

Prefill latency comes from the pass itself. Here each prompt is decoded on one side and then on the
other, in alternating order, so that a machine that slows down slows both.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from evalharness.data.windows import Window
from evalharness.pair.side import Side
from evalharness.run import records


@torch.inference_mode()
def decode_latency(
    reference: Side, candidate: Side, prompts: list[np.ndarray[Any, Any]], steps: int
) -> pa.Table:
    """Seconds of so many greedy steps with a KV cache after each of ``prompts``, as TIMINGS."""
    for side in (reference, candidate):
        _decode(side, prompts[0], 2)  # the first run of a kernel is never typical
    rows = []
    for number, prompt in enumerate(prompts):
        order = [("ref", reference), ("cand", candidate)]
        seconds = {
            f"seconds_{name}": _decode(side, prompt, steps)
            for name, side in (order if number % 2 == 0 else reversed(order))
        }
        rows.append({"kind": "decode", "tokens": steps, **seconds})
    return pa.Table.from_pylist(rows, schema=records.TIMINGS)


def _decode(side: Side, prompt: np.ndarray[Any, Any], steps: int) -> float:
    ids = _ids(prompt, side)[None]
    out = side.model(input_ids=ids, use_cache=True)
    _wait(side)
    started = time.perf_counter()
    for _ in range(steps):
        token = out.logits[:, -1:].argmax(-1)
        out = side.model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
    _wait(side)
    return time.perf_counter() - started


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
    return int(grown) + side.loaded.manifest.weight_bytes


def _ids(tokens: np.ndarray[Any, Any], side: Side) -> torch.Tensor:
    """``tokens`` on the side's device; where they are of a larger vocabulary, others of its own.

    A clock does not mind which they are, and both sides are timed on as many.
    """
    return torch.from_numpy(tokens % side.vocab_size).to(side.device)


def _wait(side: Side) -> None:
    if side.device.type == "cuda":
        torch.cuda.synchronize(side.device)
