"""Loaded sides for the task tests: tiny models with what `run_tasks` asks of a `LoadedModel`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LOCAL = ("choose.yaml", "write.yaml", "read.yaml", "finish.yaml")
TASKS = Path(__file__).parents[2] / "data" / "lm_tasks"


def side(tiny: Callable[..., Path], seed: int = 0, name: str = "", **config: Any) -> Any:
    """Load a tiny random Llama that can read 1024 tokens, of its own each time."""
    import torch

    path = tiny(seed, **({"max_position_embeddings": 1024} | config))
    model, tokenizer = copy.deepcopy(_loaded(path))
    return SimpleNamespace(
        name=name or f"tiny{seed}",
        path=path,
        model=model,
        tokenizer=tokenizer,
        device=torch.device("cpu"),
    )


@cache
def _loaded(path: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(path)


def prepare(*names: str, seed: int = 0, **options: Any) -> Any:
    """Prepare tasks of tests/data/lm_tasks by file name, or lm-eval's and ours by name."""
    from evalharness.data.items import prepare_tasks
    from evalharness.spec.suite import Task

    entries = [
        Task(path=str(TASKS / n), **options) if n.endswith(".yaml") else Task(name=n, **options)
        for n in names
    ]
    return prepare_tasks(tuple(entries), seed=seed)


def run(reference: Any, candidate: Any, *names: str, **options: Any) -> list[Any]:
    """Score tasks on both sides, two documents a batch."""
    from evalharness.pair.tasks.run import run_tasks

    return list(run_tasks(reference, candidate, prepare(*names, **options), batch_size=2))
