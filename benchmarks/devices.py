"""What a second device saves: reference and candidate on a GPU each, against both on one.

Random weights of a real model's shape, the project's own pass over blocks of documents as `compare`
makes it (statistics, records and all), wall time. The bare forward passes of the slower side alone
are what two devices cannot go below.

    python benchmarks/devices.py --shape 8b
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pair_overhead import SHAPES, random_side

from evalharness.data.documents import Document
from evalharness.data.windows import Window
from evalharness.engines.base import LoadedModel
from evalharness.pair.side import Side, chunks
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.probes.layer_watcher import LayerWatcher

LENGTH, BATCH, BATCHES = 2048, 8, 4


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if torch.cuda.device_count() < 2:
        raise SystemExit("needs two CUDA devices")
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    reference, there = side(args.shape, first), side(args.shape, second)
    here = side(args.shape, first)
    documents, block = texts(SHAPES[args.shape][-1])
    runs: dict[str, Callable[[], Any]] = {
        "one side, bare": lambda: bare(there, block),
        "one device": lambda: work(reference, here, documents, block),
        "two devices": lambda: work(reference, there, documents, block),
        "one device, blocks probed": lambda: work(reference, here, documents, block, True),
        "two devices, blocks probed": lambda: work(reference, there, documents, block, True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(args.repeats + 1):
        for name, run in runs.items():
            wait()
            start = time.perf_counter()
            run()
            wait()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    tokens = sum(len(s.ids) for s in block)
    print(f"shape {args.shape}, {tokens} tokens, torch {torch.__version__}, 2 x", end=" ")
    print(torch.cuda.get_device_name())
    print(f"{'':28}{'µs/token':>10}{'÷ bare side':>13}{'÷ one device':>14}")
    for name, taken in seconds.items():
        line = f"{name:28}{statistics.median(taken) / tokens * 1e6:10.2f}"
        line += f"{ratio(taken, seconds['one side, bare']):13.3f}"
        if name.startswith("two"):
            line += f"{ratio(taken, seconds[name.replace('two devices', 'one device')]):14.3f}"
        print(line)


class _Silent:
    """A tokenizer of no words."""

    def __len__(self) -> int:
        return 1 << 20

    def decode(self, ids: Any) -> str:
        """Nothing."""
        return ""


def side(shape: str, device: torch.device) -> Side:
    """A random model with a tokenizer that says nothing: contexts of extremes are decoded."""
    found = random_side(shape, device, 0).loaded
    silent: Any = _Silent()
    return Side(LoadedModel(found.name, found.model, silent, device, found.manifest))


def texts(vocabulary: int) -> tuple[list[Document], list[Window]]:
    """Documents of random tokens, a window each; every second one is the layer probe's."""
    random = np.random.default_rng(0)
    documents = [
        Document(i, "random", str(i), random.integers(0, vocabulary, LENGTH), None, {})
        for i in range(BATCH * BATCHES)
    ]
    windows = [
        Window(d.number, d.number, 0, d.tokens, 0, LENGTH - 1, d.number % 2 == 1) for d in documents
    ]
    return documents, windows


def work(
    reference: Side,
    candidate: Side,
    documents: list[Document],
    block: list[Window],
    probed: bool = False,
) -> None:
    """The pass over one block of records."""
    probe = LayerWatcher(reference, candidate, linears=False) if probed else None
    TokenPass(reference, candidate, documents, batch_size=BATCH, probe=probe).run(block)


@torch.inference_mode()
def bare(side: Side, block: list[Window]) -> None:
    """One model's forward passes, logits thrown away."""
    for i in range(0, len(block), BATCH):
        ids = np.stack([s.ids for s in block[i : i + BATCH]])
        h_NC = side.hidden(torch.from_numpy(ids).to(side.device)).flatten(0, 1)
        for piece in chunks(len(h_NC), 1024):
            side.logits(h_NC[piece])


def wait() -> None:
    for i in range(2):
        torch.cuda.synchronize(i)


def ratio(taken: list[float], over: list[float]) -> float:
    """Median of the ratios, repeat by repeat."""
    return statistics.median(a / b for a, b in zip(taken, over, strict=True))


if __name__ == "__main__":
    main()
