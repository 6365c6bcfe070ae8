"""What comparing costs on a CPU beyond running both models: `pair_overhead.py` without a GPU.

The demo's pair (SmolLM2-135M in bfloat16 and its 4-bit version) over windows of its texts. Bare:
each model's own forward pass over the batches, logits of every position, thrown away, in a process
of its own (`plain_forward.py`). Against it, the whole pass as a run makes it (`TokenPass.run`:
both models, token statistics, records):

    statistics   no layer probe
    sampled      every block and linear, in the windows that the demo samples
    blocks       every block of every window
    all          every block and linear of every window

CPU seconds of one thread, variants in turn, the median of the rounds' ratios.

    python benchmarks/pair_overhead_cpu.py [--documents 64] [--rounds 2]

Exits 1 if a variant is beyond its limit. Two more rows are no part of the claim: ``kept``, the bare
passes in this process, which keeps freed memory as a run does (`engines.device_memory`), and
``chunked``, backbones, and heads in the pass's chunks at scored positions: the least that any pass
can cost.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from plain_forward import DEMO, forward, load_demo, seconds

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

LIMITS = {"statistics": 1.08, "blocks": 1.15, "sampled": 1.15}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--plain", action="store_true", help="statistics without compiling")
    options = parser.parse_args()

    import torch

    from evalharness.data import documents
    from evalharness.data.windows import batches, cut, padded
    from evalharness.pair.side import Side, chunks, default_chunk
    from evalharness.pair.texts.token_pass import TokenPass
    from evalharness.probes.layer_watcher import LayerWatcher
    from evalharness.spec.suite import load_suite

    torch.set_num_threads(1)
    sides = [Side(one) for one in load_demo(["base", "candidate"], "bfloat16")]
    reference, candidate = sides
    suite = load_suite(DEMO / "demo.yaml")
    texts = documents.read_texts(suite)[0]
    everything = documents.tokenize(texts, suite, reference.loaded.tokenizer, reference.vocab_size)
    bos = documents.bos_token(reference.loaded.tokenizer)
    share = suite.layers.windows / len(cut(everything, suite, bos))
    docs = everything[: options.documents]
    plain = cut(docs, suite, bos)
    sampled = cut(docs, suite, bos, watched=max(1, round(share * len(plain))))
    probed = [replace(s, probed=True) for s in plain]
    chunk = default_chunk(reference.device, reference.vocab_size, 2)

    def kept(windows: list[Any]) -> None:
        forward(batches(windows, suite.batch_size), [side.model for side in sides])

    @torch.inference_mode()
    def chunked(windows: list[Any]) -> None:
        for batch in batches(windows, suite.batch_size):
            scored = torch.tensor([s.scored for s in batch])
            for side in sides:
                hidden = side.hidden(torch.from_numpy(padded(batch)))
                rows = torch.cat([h[:n] for h, n in zip(hidden, scored, strict=True)])
                for piece in chunks(len(rows), chunk):
                    side.logits(rows[piece])

    def passed(probe: Any) -> Callable[[list[Any]], Any]:
        work = TokenPass(
            reference,
            candidate,
            docs,
            batch_size=suite.batch_size,
            probe=probe,
            chunk=chunk,
            compiled=not options.plain,
        )
        return work.run

    blocks = LayerWatcher(reference, candidate, linears=False)
    linears = LayerWatcher(reference, candidate, linears=True)
    variants: dict[str, tuple[Callable[[list[Any]], Any], list[Any]]] = {
        "kept": (kept, plain),
        "chunked": (chunked, plain),
        "statistics": (passed(None), plain),
        "sampled": (passed(linears), sampled),
        "blocks": (passed(blocks), probed),
        "all": (passed(linears), probed),
    }
    for run, windows in variants.values():
        run(windows[: suite.batch_size])  # compile, and whatever else the first time takes
    taken: dict[str, list[float]] = {"bare": [], **{name: [] for name in variants}}
    for _ in range(options.rounds):
        taken["bare"] += seconds(["base", "candidate"], options.documents)
        for name, (run, windows) in variants.items():
            start = time.process_time()
            run(windows)
            taken[name].append(time.process_time() - start)

    tokens = sum(len(s.ids) for s in plain)
    print(
        f"SmolLM2-135M and its 4-bit version, bfloat16, {tokens} tokens in {len(plain)} windows, "
        f"{sum(w.probed for w in sampled)} of them sampled; "
        f"torch {torch.__version__}, one thread, CPU seconds"
    )
    print(f"{'':12}{'µs/token':>10}{'ratio':>8}{'limit':>8}")
    failed = False
    for name, own in taken.items():
        ratio = statistics.median(t / b for t, b in zip(own, taken["bare"], strict=True))
        limit = LIMITS.get(name)
        failed |= limit is not None and ratio > limit
        print(
            f"{name:12}{statistics.median(own) / tokens * 1e6:10.1f}{ratio:8.3f}"
            + (f"{limit:8.2f}" if limit else "")
        )
    print("FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
