"""What comparing costs on a CPU beyond running both models: `pair_overhead.py` without a GPU.

The demo's pair (SmolLM2-135M in bfloat16 and its 4-bit version) over windows of its texts. Bare:
each model's own forward pass over the batches, logits of every position, thrown away. Against it,
the whole pass as a run makes it (`TokenPass.measure`: both models, token statistics, records):

    statistics   no layer probe
    blocks       every block of every window
    sampled      every block and linear, in the demo's share of the windows
    all          every block and linear of every window

CPU seconds of one thread, variants in turn, the median of the rounds' ratios.

    python benchmarks/pair_overhead_cpu.py [--documents 12] [--rounds 3]

Exits 1 if a variant is beyond its limit. ``chunked`` is no part of the claim: backbones, and heads
in the pass's chunks at scored positions, which is the least that any pass can cost.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

LIMITS = {"statistics": 1.08, "blocks": 1.15, "sampled": 1.15}
DEMO = Path(__file__).resolve().parents[1] / "suites"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="statistics without compiling")
    options = parser.parse_args()

    import torch

    from evalharness.data import documents, windows
    from evalharness.models.load import load
    from evalharness.pair.side import Side, chunks
    from evalharness.pair.tokens import TokenPass, default_chunk
    from evalharness.probes.layers import LayerProbe
    from evalharness.spec.model import load_model_spec
    from evalharness.spec.suite import load_suite

    torch.set_num_threads(1)
    sides = []
    for name in ("base", "candidate"):
        spec = load_model_spec(DEMO / "demo" / f"{name}.yaml")
        model = spec.model.model_copy(update={"dtype": "bfloat16", "device": "cpu"})
        sides.append(Side(load(spec.model_copy(update={"model": model}))))
    reference, candidate = sides
    suite = load_suite(DEMO / "demo.yaml")
    texts = documents.read_texts(suite)[0]
    everything = documents.tokenize(texts, suite, reference.loaded.tokenizer, reference.vocab_size)
    bos = documents.bos_token(reference.loaded.tokenizer)
    demo = windows.cut(everything, suite, bos)
    docs = everything[: options.documents]
    plain = windows.cut(docs, suite.model_copy(update={"probes": ()}), bos)
    share = suite.layers.windows / len(demo)
    layers = suite.layers.model_copy(update={"windows": max(1, round(share * len(plain)))})
    sampled = windows.cut(docs, suite.model_copy(update={"layers": layers}), bos)
    probed = [replace(s, probed=True) for s in plain]
    batches = windows.batches(plain, suite.batch_size)
    device = reference.device

    def laid_out(batch: list[Any]) -> Any:
        ids = torch.zeros(len(batch), max(len(s.ids) for s in batch), dtype=torch.long)
        for i, s in enumerate(batch):
            ids[i, : len(s.ids)] = torch.from_numpy(s.ids)
        return ids

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            for side in sides:
                side.model(input_ids=laid_out(batch), use_cache=False)

    @torch.inference_mode()
    def chunked() -> None:
        for batch in batches:
            scored = torch.tensor([s.scored for s in batch])
            for side in sides:
                hidden = side.hidden(laid_out(batch))
                rows = torch.cat([h[:n] for h, n in zip(hidden, scored, strict=True)])
                for piece in chunks(len(rows), default_chunk(device)):
                    side.logits(rows[piece])

    def passed(slots: list[Any], probe: Any) -> Callable[[], Any]:
        work = TokenPass(
            reference, candidate, docs, batch_size=suite.batch_size, probe=probe,
            compiled=not options.plain,
        )  # fmt: skip
        return lambda: work.measure(slots)

    linears = LayerProbe(reference, candidate, linears=True)
    variants: dict[str, Callable[[], Any]] = {
        "bare": bare,
        "chunked": chunked,
        "statistics": passed(plain, None),
        "blocks": passed(probed, LayerProbe(reference, candidate, linears=False)),
        "sampled": passed(sampled, linears),
        "all": passed(probed, linears),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(options.rounds + 1):
        for name, run in variants.items():
            start = time.process_time()
            run()
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - start)

    tokens = sum(len(s.ids) for s in plain)
    print(
        f"SmolLM2-135M and its 4-bit version, bfloat16, {tokens} tokens in {len(plain)} windows, "
        f"{layers.windows} of them sampled; torch {torch.__version__}, one thread, CPU seconds"
    )
    print(f"{'':12}{'µs/token':>10}{'ratio':>8}{'limit':>8}")
    failed = False
    for name, taken in seconds.items():
        ratio = statistics.median(t / b for t, b in zip(taken, seconds["bare"], strict=True))
        limit = LIMITS.get(name)
        failed |= limit is not None and ratio > limit
        print(
            f"{name:12}{statistics.median(taken) / tokens * 1e6:10.1f}{ratio:8.3f}"
            + (f"{limit:8.2f}" if limit else "")
        )
    print("FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
