"""CPU seconds of the demo models' own forward passes, in a process that does nothing else.

What running the models costs without evalharness: transformers, the windows in padded batches,
logits of every position thrown away, and the allocator as it comes (a pass of ours keeps freed
memory, `engines.device_memory`, which would make these passes faster too).

    python benchmarks/plain_forward.py [--models base candidate] [--documents 64] [--rounds 1]

Prints one number a round, after a round over the first batch. Other benchmarks call `seconds`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

DEMO = Path(__file__).resolve().parents[1] / "suites"


def seconds(
    models: list[str], documents: int, rounds: int = 1, dtype: str = "bfloat16"
) -> list[float]:
    """Run this script, and return what it prints."""
    command = [
        sys.executable,
        __file__,
        "--models",
        *models,
        "--documents",
        str(documents),
        "--rounds",
        str(rounds),
        "--dtype",
        dtype,
    ]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [float(line) for line in found.stdout.split()]


def load_demo(models: list[str], dtype: str) -> list[Any]:
    """The demo's models, on the CPU."""
    from evalharness.engines.loading import load
    from evalharness.spec.model import load_model_spec

    loaded = []
    for name in models:
        spec = load_model_spec(DEMO / "demo" / f"{name}.yaml")
        model = spec.model.model_copy(update={"dtype": dtype, "device": "cpu"})
        loaded.append(load(spec.model_copy(update={"model": model})))
    return loaded


def forward(batches: list[Any], models: list[Any]) -> None:
    """Each model's own forward pass over the batches, in turn; the logits are thrown away."""
    import torch

    from evalharness.data.windows import padded

    with torch.inference_mode():
        for batch in batches:
            for model in models:
                model(input_ids=torch.from_numpy(padded(batch)), use_cache=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["base", "candidate"])
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()

    import torch

    from evalharness.data import documents
    from evalharness.data.windows import batches, cut
    from evalharness.spec.suite import load_suite

    torch.set_num_threads(1)
    loaded = load_demo(options.models, options.dtype)
    models = [one.model for one in loaded]
    suite = load_suite(DEMO / "demo.yaml").model_copy(update={"probes": ()})
    texts = documents.read_texts(suite)[0][: options.documents]
    size = loaded[0].model.config.vocab_size
    docs = documents.tokenize(texts, suite, loaded[0].tokenizer, size)
    windows = cut(docs, suite, documents.bos_token(loaded[0].tokenizer))
    batches = batches(windows, suite.batch_size)

    forward(batches[:1], models)
    for _ in range(options.rounds):
        start = time.process_time()
        forward(batches, models)
        print(time.process_time() - start, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
