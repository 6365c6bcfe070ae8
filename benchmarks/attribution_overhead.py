"""What taking the layer error apart costs: all four errors of every block, over one pair pass.

Random weights of a real model's shape, the candidate a noisy copy. One pair pass is both backbones
and both heads (in chunks of positions), logits thrown away. Against it: total alone, total with own
and inherited (one more call of each reference block), all four (and one more of each candidate
block), and all four with total and own of every linear. CUDA: wall time and peak memory; CPU: CPU
seconds of one thread. Memory is held against the pair pass's own peak and two blocks: the weights
of one block of each side, and what its linears put out for the batch.

    python benchmarks/attribution_overhead.py --shape 1b
    python benchmarks/attribution_overhead.py --shape smollm2 --device cpu --quick
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from pair_overhead import SHAPES, random_side

from evalharness.pair.side import chunks
from evalharness.probes.layer_watcher import LayerWatcher

VARIANTS: dict[str, tuple[tuple[str, ...], bool]] = {
    "total": (("total",), False),
    "own": (("total", "own", "inherited"), False),
    "four": (("total", "own", "inherited", "own_on_clean"), False),
    "linears": (("total", "own", "inherited", "own_on_clean"), True),
}
TARGET = 2.5  # of "four", over one pair pass
CHUNK = 1024


def main() -> int:
    """Parse, measure, print; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sequences", type=int, default=None, help="default: 4; CPU 1")
    parser.add_argument("--quick", action="store_true", help="fewer tokens and repeats")
    args = parser.parse_args()
    cuda = args.device.startswith("cuda")
    if not cuda:
        torch.set_num_threads(1)
    sequences = args.sequences or (4 if cuda else 1)
    length = (2048 if cuda else 512) // (4 if args.quick else 1)
    bench = Bench(args.shape, torch.device(args.device), sequences, length)
    runs: dict[str, Callable[[], Any]] = {"pair": bench.pair}
    runs |= {name: lambda name=name: bench.probed(name) for name in VARIANTS}
    measured = measure(runs, cuda, 2 if args.quick else 5)
    return report(bench, measured, cuda)


class Bench:
    """Two models of one shape and a batch of random tokens."""

    def __init__(self, shape: str, device: torch.device, sequences: int, length: int) -> None:
        self.shape, self.device = shape, device
        self.reference, self.candidate = (random_side(shape, device, seed=0) for _ in range(2))
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in self.candidate.model.parameters():
                if weight.ndim == 2:
                    weight.add_(torch.randn_like(weight) * weight.std() * 0.05)
        self.ids_BT = torch.randint(0, SHAPES[shape][-1], (sequences, length), device=device)
        self.docs_BT = torch.arange(sequences, device=device)[:, None].expand(-1, length)
        self.at_BT = torch.arange(length, device=device).expand(sequences, -1)
        self.probes = {
            name: LayerWatcher(self.reference, self.candidate, linears, errors)
            for name, (errors, linears) in VARIANTS.items()
        }

    @property
    def tokens(self) -> int:
        return self.ids_BT.numel()

    @property
    def two_blocks(self) -> int:
        """Bytes of a block of each side: its weights, and its linears' outputs for the batch."""
        total = 0
        for side in (self.reference, self.candidate):
            block = side.model.model.layers[0]
            total += sum(p.numel() * p.element_size() for p in block.parameters())
            columns = sum(m.out_features for m in block.modules() if hasattr(m, "out_features"))
            total += columns * self.tokens * 2  # bfloat16
        return total

    @torch.inference_mode()
    def pair(self) -> None:
        """Both forward passes, logits of every position."""
        for side in (self.reference, self.candidate):
            h_NC = side.hidden(self.ids_BT).flatten(0, 1)
            for piece in chunks(len(h_NC), CHUNK):
                side.logits(h_NC[piece])

    @torch.inference_mode()
    def probed(self, name: str) -> None:
        """The same in lock-step, with the table of the sums at the end."""
        probe = self.probes[name]
        probe.begin(list(range(len(self.ids_BT))))
        h_ref, h_cand = probe.run(self.ids_BT, self.ids_BT, self.docs_BT, self.at_BT)
        h_ref, h_cand = h_ref.flatten(0, 1), h_cand.flatten(0, 1)
        docs_N, at_N = self.docs_BT.flatten(), self.at_BT.flatten()
        for piece in chunks(len(h_ref), CHUNK):
            z, w = self.reference.logits(h_ref[piece]), self.candidate.logits(h_cand[piece])
            probe.add_head(z, w, docs_N[piece], at_N[piece], h_cand[piece])
        probe.table()


def measure(
    runs: dict[str, Callable[[], Any]], cuda: bool, repeats: int
) -> dict[str, tuple[list[float], int]]:
    """Seconds of each repeat and peak bytes of each variant; in turn, after a warm-up each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    peak = dict.fromkeys(runs, 0)
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            gc.collect()
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            clock = time.perf_counter if cuda else time.process_time
            start = clock()
            run()
            if cuda:
                torch.cuda.synchronize()
            taken = clock() - start
            if repeat:
                seconds[name].append(taken)
                if cuda:
                    peak[name] = max(peak[name], torch.cuda.max_memory_allocated())
    return {name: (seconds[name], peak[name]) for name in runs}


def report(bench: Bench, measured: dict[str, tuple[list[float], int]], cuda: bool) -> int:
    """A line a variant, and the targets."""
    pair, pair_peak = measured["pair"]
    allowed = pair_peak + bench.two_blocks
    where = torch.cuda.get_device_name() if cuda else "CPU, one thread, CPU seconds"
    print(f"shape {bench.shape}, {bench.tokens} tokens, torch {torch.__version__}, {where}")
    missed = False
    for name, (seconds, peak) in measured.items():
        ratio = statistics.median(s / b for s, b in zip(seconds, pair, strict=True))
        line = (
            f"{name:9}{statistics.median(seconds) / bench.tokens * 1e6:10.2f} µs/token{ratio:8.2f}×"
        )
        if name == "four":
            missed |= ratio > TARGET
            line += f"  (target: at most {TARGET})"
        if cuda:
            line += f"{peak / 2**30:8.2f} GiB"
            if name == "four":
                missed |= peak > allowed
                line += f"  (target: below {allowed / 2**30:.2f})"
        print(line)
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
