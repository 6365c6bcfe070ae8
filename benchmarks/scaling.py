"""Claim: time grows with the tokens and memory does not; both grow gently with the vocabulary.

Random Llama pairs on the CPU, one thread, the pair pass without the layer probe. Each measurement
is a process of its own, so that its peak of resident memory is its own. Prints and plots CPU
seconds a token and peak memory against tokens (1×, 4×, 16×) and vocabulary.

    python benchmarks/scaling.py scaling.svg [--tokens 2048] [--vocabulary 8192 32768 131072]

Exits 1 if 16 × the tokens need more than 1.1 × the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TIMES = (1, 4, 16)
LIMIT = 1.1


def one(tokens: int, vocabulary: int) -> dict[str, float]:
    """Measure one pass, in this process."""
    import time
    from types import SimpleNamespace
    from typing import Any, cast

    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from evalharness.data.documents import Document
    from evalharness.data.windows import blocks, cut
    from evalharness.pair.side import Side
    from evalharness.pair.texts.token_pass import TokenPass
    from evalharness.run.environment import peak_memory
    from evalharness.spec.suite import Suite

    torch.set_num_threads(1)
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
    )
    sides = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
        tokenizer = SimpleNamespace(decode=lambda ids: " ".join(str(i) for i in ids))
        loaded = SimpleNamespace(
            name="m", model=model, device=torch.device("cpu"), tokenizer=tokenizer
        )
        sides.append(Side(cast(Any, loaded)))
    suite = Suite.model_validate(
        {"name": "s", "corpora": [{"name": "c", "source": "python:x"}], "window": {"tokens": 256}}
    )
    ids = np.random.default_rng(0).integers(0, vocabulary, (tokens // 256, 256))
    documents = [Document(i, "c", str(i), row, None, {}) for i, row in enumerate(ids)]
    windows = cut(documents, suite, None)
    work = TokenPass(sides[0], sides[1], documents, batch_size=4, probe=None)
    work.run(windows[:1])
    start = time.process_time()
    for block in blocks(documents, windows, 2048):
        work.run(block)  # written and let go of by a run; here only let go of
    return {"seconds": time.process_time() - start, "bytes": float(peak_memory())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plot", type=Path, help="where to: .png or .svg")
    parser.add_argument("--tokens", type=int, default=2048, help="at 1×")
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[8192, 32768, 131072])
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return 0

    found: dict[tuple[int, int], dict[str, float]] = {}
    print(f"{'vocabulary':>10} {'tokens':>8} {'CPU µs/token':>13} {'peak MiB':>9}")
    wanted = [(options.tokens * t, options.vocabulary[0]) for t in TIMES]
    wanted += [(options.tokens, v) for v in options.vocabulary[1:]]
    for tokens, vocabulary in wanted:
        done = subprocess.run(
            [sys.executable, __file__, str(options.plot), "--one", str(tokens), str(vocabulary)],
            capture_output=True,
            text=True,
            env=os.environ | ENVIRONMENT,
            check=True,
        )
        r = found[tokens, vocabulary] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{vocabulary:10,} {tokens:8,} {1e6 * r['seconds'] / tokens:13.0f} "
            f"{r['bytes'] / 2**20:9.0f}",
            flush=True,
        )
    plot(options.plot, found, wanted)
    least, most = found[wanted[0]], found[wanted[len(TIMES) - 1]]
    growth = most["bytes"] / least["bytes"]
    slower = most["seconds"] / least["seconds"] / TIMES[-1]
    print(f"16 × the tokens: {growth:.3f} × the memory, {slower:.2f} × the time a token")
    print("FAILED" if growth > LIMIT else "passed")
    return int(growth > LIMIT)


def plot(
    path: Path, found: dict[tuple[int, int], dict[str, float]], wanted: list[tuple[int, int]]
) -> None:
    """Four panels: CPU seconds and peak memory, against tokens and against vocabulary."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(8, 6), layout="constrained")
    by_tokens, by_vocabulary = wanted[: len(TIMES)], [wanted[0], *wanted[len(TIMES) :]]
    for column, (points, axis, name) in enumerate(
        ((by_tokens, 0, "tokens"), (by_vocabulary, 1, "vocabulary"))
    ):
        x = [p[axis] for p in points]
        for row, (key, scale, label) in enumerate(
            (("seconds", 1.0, "CPU s"), ("bytes", 2**20, "peak memory, MiB"))
        ):
            panel = panels[row][column]
            panel.plot(x, [found[p][key] / scale for p in points], "o-")
            panel.set(xlabel=name, ylabel=label, xscale="log", xticks=x, xticklabels=x)
            panel.set_ylim(bottom=0)
            panel.minorticks_off()
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
