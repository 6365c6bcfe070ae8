"""Tasks recorded in a run, and what happens when memory runs out meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from evalharness.pair.tasks import packed_lm
from evalharness.pair.tasks.packed_lm import PrefixScorer
from evalharness.progress import Progress
from evalharness.run.directory import Run
from evalharness.workflow.record_tasks import record_tasks
from tests.pair.tasks.lm_sides import prepare, side

Tiny = Callable[..., Path]


def test_out_of_memory_halves_the_batch_and_what_is_said_of_scoring_is_a_warning(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same records come out; a model that cannot be packed is named in the run."""
    pair = side(tiny, 0), side(tiny, 1)
    suite: Any = SimpleNamespace(batch_size=4, seed=0)
    real = pair[1].model.model.forward

    def forward(*args: Any, input_ids: Any, **options: Any) -> Any:
        if len(input_ids) > most and input_ids.shape[1] > 20:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(*args, input_ids=input_ids, **options)

    pair[1].model.model.forward = forward
    sides: list[Any] = [SimpleNamespace(loaded=p, device=p.device) for p in pair]
    tables: list[dict[str, pd.DataFrame]] = []
    said: list[str] = []

    def record(run: Run) -> None:
        record_tasks(
            *sides,
            prepare("choose.yaml"),
            suite,
            run,
            progress=Progress(),
            say=said.append,
            between=lambda: None,
        )

    for most in (99, 1):
        run = Run.create(tmp_path / str(most), {"warnings": ["before"]})
        record(run)
        tables.append({n: run.table(n).to_pandas() for n in ("items", "item_tokens", "tasks")})
        assert run.manifest["warnings"] == ["before"]
    assert said == [f"out of memory: continuing with {n} task requests at a time" for n in (2, 1)]
    for name, frame in tables[0].items():
        assert len(frame) > 0
        pd.testing.assert_frame_equal(
            frame, tables[1][name], rtol=1e-4, atol=1e-5, check_exact=False
        )

    monkeypatch.setattr(PrefixScorer, "takes", lambda self, requests: False)
    monkeypatch.setattr(packed_lm, "unsupported", lambda side: "it is odd")
    run = Run.create(tmp_path / "odd", {"warnings": ["before"]})
    most = 99
    record(run)
    assert run.manifest["warnings"] == [
        "before",
        "tiny0: it is odd; tasks are scored request by request, and without KL",
        "tiny1: it is odd; tasks are scored request by request, and without KL",
    ]
    assert len(run.table("item_tokens")) == 0
