"""What comparing costs beyond running both models.

Random weights of a real model's shape, the project's own pass: two bare forward passes (backbone,
then the head in chunks of positions, logits thrown away) against the same with token statistics,
and with layer probes in lock-step. All ratios come from one run, its variants taken in turn. CUDA:
wall time and the peak memory above that of the bare passes; CPU: CPU seconds of one thread.

    python benchmarks/pair_overhead.py --shape 1b
    python benchmarks/pair_overhead.py --shape smollm2 --device cpu
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evalharness.engines.base import LoadedModel
from evalharness.pair.side import Side, chunks, default_chunk
from evalharness.pair.texts.statistics import token_statistics
from evalharness.probes.layer_watcher import LayerWatcher

SHAPES = {  # hidden, layers, heads, key-value heads, intermediate, vocabulary
    "1b": (2048, 16, 32, 8, 8192, 128256),
    "8b": (4096, 32, 32, 8, 14336, 128256),
    "smollm2": (576, 30, 9, 3, 1536, 49152),
}
# Most that a variant may take, over the two bare passes.
TARGETS = {
    "1b": {"statistics": 1.03, "blocks": 1.05, "all": 1.10},
    "8b": {"statistics": 1.01, "blocks": 1.03, "all": 1.07},
    "smollm2": {"statistics": 1.08, "all": 1.15},
}
# One after the other, in a block of records: the probes' table is written at its end.
BATCHES = {"cuda": 8, "cpu": 2}
MEMORY = {"statistics": 1.1, "blocks": 2.0, "all": 2.0}  # GiB above the bare passes, on CUDA


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--probes", choices=("none", "blocks", "all"), default="all")
    parser.add_argument("--quick", action="store_true", help="fewer tokens and repeats")
    parser.add_argument("--plain", action="store_true", help="CPU: statistics without compiling")
    args = parser.parse_args()
    device = torch.device(args.device)
    cuda = device.type == "cuda"
    if not cuda and args.shape == "smollm2":
        import pair_overhead_cpu

        print("smollm2 on a CPU: see pair_overhead_cpu.py")
        sys.argv = sys.argv[:1]
        sys.exit(pair_overhead_cpu.main())
    if not cuda:
        torch.set_num_threads(1)
    sequences, length = (8, 2048) if cuda else (4, 512)
    if args.quick:
        sequences = max(1, sequences // 4)
    compiled = not cuda and not args.plain
    pair = Pair(args.shape, device, sequences, length, compiled)
    variants: dict[str, Callable[[], Any]] = {
        "bare": pair.bare,
        "statistics": lambda: [pair.statistics() for _ in range(pair.batches)],
    }
    if args.probes != "none":
        variants["blocks"] = lambda: pair.probed(linears=False)
    if args.probes == "all":
        variants["all"] = lambda: pair.probed(linears=True)
    measured = measure(variants, device, repeats=3 if args.quick else 5)
    report(measured, args.shape, pair.batches * sequences * length, cuda)


class Pair:
    """Two models of one shape, the candidate a noisy copy, and a batch of random tokens."""

    def __init__(
        self, shape: str, device: torch.device, sequences: int, length: int, compiled: bool
    ) -> None:
        self.device, self.compiled, self.batches = device, compiled, BATCHES[device.type]
        self.chunk = default_chunk(device)
        self.reference, self.candidate = (random_side(shape, device, seed) for seed in (0, 1))
        torch.manual_seed(2)
        with torch.no_grad():
            for p, q in zip(
                self.reference.model.parameters(), self.candidate.model.parameters(), strict=True
            ):
                q.copy_(p * (1 + 0.01 * torch.randn_like(p)))
        vocabulary = self.reference.vocab_size
        self.ids_BT = torch.randint(vocabulary, (sequences, length), device=device)
        self.target_N = self.ids_BT.roll(-1, 1).reshape(-1)
        self.docs_BT = torch.arange(sequences, device=device)[:, None].expand(sequences, length)
        self.positions_BT = torch.arange(length, device=device).expand(sequences, length)

        self.probes = {
            linears: LayerWatcher(self.reference, self.candidate, linears)
            for linears in (False, True)
        }

    @torch.inference_mode()
    def bare(self) -> None:
        """Both forward passes, logits of every position."""
        for side in self.batches * (self.reference, self.candidate):
            h_NC = side.hidden(self.ids_BT).flatten(0, 1)
            for piece in chunks(len(h_NC), self.chunk):
                side.logits(h_NC[piece])

    @torch.inference_mode()
    def statistics(self, probe: LayerWatcher | None = None) -> list[torch.Tensor]:
        """The same, and token statistics; one transfer to the host."""
        if probe is None:
            h_ref, h_cand = self.reference.hidden(self.ids_BT), self.candidate.hidden(self.ids_BT)
        else:
            h_ref, h_cand = probe.run(self.ids_BT, self.ids_BT, self.docs_BT, self.positions_BT)
        h_ref, h_cand = h_ref.flatten(0, 1), h_cand.flatten(0, 1)
        docs_N, positions_N = self.docs_BT.flatten(), self.positions_BT.flatten()
        found: list[dict[str, torch.Tensor]] = []
        for piece in chunks(len(h_ref), self.chunk):
            z, w = self.reference.logits(h_ref[piece]), self.candidate.logits(h_cand[piece])
            found.append(token_statistics(z, w, self.target_N[piece], compiled=self.compiled))
            if probe is not None:
                probe.add_head(z, w, docs_N[piece], positions_N[piece], h_cand[piece])
        return [torch.cat([f[name] for f in found]).cpu() for name in found[0]]

    @torch.inference_mode()
    def probed(self, linears: bool) -> None:
        """The same, with every block (and linear) watched; the table of the sums at the end.

        On CUDA all windows are, on a CPU half of them: a suite asks for a sample.
        """
        probe = self.probes[linears]
        probe.begin(list(range(len(self.ids_BT))))
        for i in range(self.batches):
            self.statistics(probe if i == 0 or self.device.type == "cuda" else None)
        probe.table()


def random_side(shape: str, device: torch.device, seed: int) -> Side:
    """A model of random weights."""
    hidden, layers, heads, kv_heads, intermediate, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=intermediate,
        vocab_size=vocabulary,
        tie_word_embeddings=shape != "8b",
        dtype=torch.bfloat16,
    )
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.bfloat16)
    with device:
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    nothing: Any = None
    tokens: Any = range(vocabulary)  # of a tokenizer only its size is asked for
    return Side(LoadedModel(f"random {shape}", model, tokens, device, nothing))


def measure(
    variants: dict[str, Callable[[], Any]], device: torch.device, repeats: int
) -> dict[str, tuple[list[float], float]]:
    """Seconds of each repeat and peak GiB of each variant; in turn, after a warm-up each."""
    cuda = device.type == "cuda"
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    peak = dict.fromkeys(variants, 0.0)
    for repeat in range(repeats + 1):
        for name, run in variants.items():
            gc.collect()
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter() if cuda else time.process_time()
            run()
            if cuda:
                torch.cuda.synchronize()
                peak[name] = max(peak[name], torch.cuda.max_memory_allocated() / 2**30)
            taken = (time.perf_counter() if cuda else time.process_time()) - start
            if repeat:
                seconds[name].append(taken)
    return {name: (seconds[name], peak[name]) for name in variants}


def report(
    measured: dict[str, tuple[list[float], float]], shape: str, tokens: int, cuda: bool
) -> None:
    """A line a variant: µs a token of both models, ratio to the bare passes, memory, targets."""
    bare, bare_peak = measured["bare"]
    print(f"shape {shape}, {tokens} tokens, torch {torch.__version__}, {_device(cuda)}")
    print(f"{'':12}{'µs/token':>10}{'ratio':>8}{'target':>8}{'GiB':>7}{'target':>8}")
    for name, (seconds, peak) in measured.items():
        # Each repeat against the bare passes beside it: what slows the machine slows both.
        ratio = statistics.median(s / b for s, b in zip(seconds, bare, strict=True))
        line = f"{name:12}{statistics.median(seconds) / tokens * 1e6:10.2f}{ratio:8.3f}"
        target = TARGETS[shape].get(name)
        line += f"{target:8.2f}" if target else f"{'':8}"
        if cuda:
            line += f"{peak - bare_peak:7.2f}" + (f"{MEMORY[name]:8.1f}" if name in MEMORY else "")
        print(line)


def _device(cuda: bool) -> str:
    return torch.cuda.get_device_name() if cuda else "CPU, one thread, CPU seconds"


if __name__ == "__main__":
    main()
