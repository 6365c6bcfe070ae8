"""The dtype that `auto` takes is said once, recorded, and part of what a run is of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evalharness.engines import computing
from evalharness.errors import InputError, RunError
from evalharness.progress import Progress
from evalharness.run.directory import Run
from evalharness.workflow.compare import compare
from tests.workflow.jobs import job

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models

SAID = "base and int4: dtype: auto computes in float32: this CPU has no matrix instructions"


@pytest.fixture
def halves(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with a model of bfloat16, `dtype: auto` and a CPU without instructions for it."""
    text = (project / "base.yaml").read_text()
    place = text.partition("path: ")[2].partition(",")[0]
    model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16)
    model.save_pretrained(project / "halves")
    for file in Path(place).glob("tokenizer*"):
        (project / "halves" / file.name).write_bytes(file.read_bytes())
    text = text.replace(place, "./halves").replace("dtype: float32", "dtype: auto")
    (project / "base.yaml").write_text(text)
    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 60)
    monkeypatch.setattr(computing, "cpu_flags", frozenset)
    return project


def test_it_is_said_once_and_recorded(halves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it runs and in the manifest."""
    told: list[str] = []
    monkeypatch.setattr(Progress, "tell", lambda _, text: told.append(text))
    _, run = compare(job(halves), Progress())
    assert [text.startswith(SAID) for text in told if "dtype" in text] == [True]
    assert [w.startswith(SAID) for w in run.manifest["warnings"] if "dtype" in w] == [True]
    dtypes = {s["manifest"]["dtype"] for s in run.manifest["sides"].values()}
    assert dtypes == {"float32"}


def test_a_run_begun_in_another_dtype_is_not_resumed(
    halves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What differs is named."""
    write = Run.write_block

    def once(self: Run, block: str, tables: Any) -> None:
        write(self, block, tables)
        raise RunError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Run, "write_block", once)
        with pytest.raises(RunError, match="killed"):
            compare(job(halves), Progress())
    monkeypatch.setattr(computing, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    with pytest.raises(InputError) as raised:
        compare(job(halves, None, resume=halves / "run"), Progress())
    assert "settings.reference.dtype ('float32', now 'bfloat16')" in str(raised.value)
    assert json.loads((halves / "run" / "manifest.json").read_text())["blocks"] > 1
