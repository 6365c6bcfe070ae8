"""With the reference cached, what a second candidate costs over its own forward pass.

Wanted: at most 1.1. A small model with a large vocabulary is beyond it, since the reference's head
and the statistics remain.

In turn: the candidate's own forward pass over the windows, in a process of its own
(`plain_forward.py`), and in this one; the whole pair pass with the reference live, filling an empty
cache; the pair pass with the reference read from the cache. CPU seconds on one thread, so that a
busy machine does not count; also bytes a token on disk, and whether the two passes gave the same
numbers. The demo's windows, without the layer probe.

    python benchmarks/cache.py [--documents 48] [--dtype bfloat16]

Exits 1 if a cached candidate costs more than 1.1 forward passes, or the numbers differ.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plain_forward import DEMO, forward, load_demo, seconds

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

LIMIT = 1.1


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of ``work``, and what it returns."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=48)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=2, help="the least of so many is taken")
    options = parser.parse_args()

    import torch

    from evalharness.data import documents
    from evalharness.data.windows import batches, cut
    from evalharness.pair.side import Side, default_chunk
    from evalharness.pair.texts.hidden_cache import HiddenCache, entries
    from evalharness.pair.texts.token_pass import TokenPass
    from evalharness.spec.suite import load_suite

    torch.set_num_threads(1)
    reference, candidate = map(Side, load_demo(["base", "candidate"], options.dtype))
    suite = load_suite(DEMO / "demo.yaml").model_copy(update={"probes": (), "tasks": ()})
    texts = documents.read_texts(suite)[0][: options.documents]
    docs = documents.tokenize(texts, suite, reference.loaded.tokenizer, reference.vocab_size)
    windows = cut(docs, suite, documents.bos_token(reference.loaded.tokenizer))
    batches = batches(windows, suite.batch_size)
    tokens = sum(len(s.ids) for s in windows)

    def kept() -> None:
        forward(batches, [candidate.model])

    def passed(cache: Any) -> Any:
        work = TokenPass(
            reference,
            candidate,
            docs,
            batch_size=suite.batch_size,
            probe=None,
            cache=cache,
            chunk=default_chunk(candidate.device, candidate.vocab_size, 2),
            compiled=True,
        )
        return work.run(windows)["tokens"]

    with tempfile.TemporaryDirectory() as folder:
        cpu(kept)  # warm
        plain, bare, live, cached = [], [], [], []
        for number in range(options.rounds):
            root = Path(folder) / str(number)
            plain += seconds(["candidate"], options.documents, 1, options.dtype)
            bare.append(cpu(kept)[0])
            took, before = cpu(lambda root=root: passed(HiddenCache(reference, root, print)))
            live.append(took)
            cache = HiddenCache(reference, root, print)
            took, after = cpu(lambda cache=cache: passed(cache))
            cached.append(took)
            assert cache.misses == 0
        stored = sum(p.stat().st_size for p in entries(root))
    scored = sum(s.scored for s in windows)
    print(f"{tokens} tokens, SmolLM2-135M and its 4-bit version, {options.dtype}, one thread")
    for what, took in (
        ("candidate's own forward pass, alone", plain),
        ("the same, freed memory kept", bare),
        ("pair pass, reference live", live),
        ("pair pass, reference cached", cached),
    ):
        print(f"{what:38}{min(took):8.1f} CPU s   {min(took) / min(plain):.2f}")
    ratio = min(cached) / min(plain)
    print(
        f"on disk                         {stored / scored:8.0f} bytes a scored token, of "
        f"{2 * reference.vocab_size:,} as 16-bit logits"
    )
    same = after.equals(before)
    print("the same numbers, bit for bit" if same else "the numbers DIFFER")
    failed = ratio > LIMIT or not same
    print("FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
