"""What goes wrong while a run is on its way: nothing recorded is lost, and the way on is told."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from evalharness.engines import loading
from evalharness.errors import InputError, Interrupted, RunError
from evalharness.run.command import Command
from evalharness.run.directory import Run
from evalharness.workflow import memory_plan as memory
from evalharness.workflow.compare import compare
from evalharness.workflow.plan import plan_job
from tests.workflow.jobs import COMPARE

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models

# A block of one or two documents; slow enough to be hit between two of them.
PROGRAM = """
import sys, time
import evalharness.workflow.plan as module
from evalharness.cli.main import main
from evalharness.run.directory import Run

module.BLOCK_TOKENS = 60
write = Run.write_block
def slow(self, *args):
    write(self, *args)
    print("block", flush=True)
    time.sleep({pause})
Run.write_block = slow
main()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("EVALHARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def job(project: Path, out: str | None = "run", **more: Any) -> Any:
    options: dict[str, Any] = {
        "suite": project / "suite.yaml",
        "gates": project / "gates.yaml",
        "out": project / out if out else None,
        "command": Command("compare", ("a", "b"), {"out": "run"}),
    }
    return plan_job(project / "base.yaml", project / "candidate.yaml", **(options | more))


def start(project: Path, *arguments: str, pause: float = 0.05) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            PROGRAM.format(pause=pause),
            *COMPARE,
            "candidate.yaml",
            "-q",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project,
    )


def stable(path: Path) -> dict[str, Any]:
    """``result.json`` without its timings and the command line."""
    data = json.loads((path / "result.json").read_text())
    for key in ("created", "cost", "command"):
        data.pop(key)
    for gate in data["gates"]:
        gate.pop("file")  # as it was given, relative or not
    data["metrics"] = [m for m in data["metrics"] if not m["id"].startswith("latency")]
    return dict(data)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one or two documents."""
    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 60)


def test_a_killed_process_resumes_to_the_same_result(project: Path, small_blocks: None) -> None:
    """SIGKILL at a random moment; then the same command with --resume."""
    compare(job(project, "whole"))
    process = start(project, "--out", "run")
    assert process.stdout is not None
    process.stdout.readline()  # a block is there
    time.sleep(random.Random(0).uniform(0, 0.3))
    process.kill()
    process.wait()
    done = len(Run.open(project / "run").done())
    assert done >= 1
    assert not (project / "run" / "result.json").exists()
    again = start(project, "--resume", "run", pause=0)
    out, err = again.communicate()
    assert again.returncode == 1, err
    assert out.count("block\n") == Run.open(project / "run").manifest["blocks"] - done
    assert stable(project / "run") == stable(project / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_writer_is_refused_and_ctrl_c_finishes_the_block(
    project: Path, small_blocks: None, number: signal.Signals
) -> None:
    """Exit 130, with the command that takes the run up again."""
    process = start(project, "--out", "run", pause=1)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(InputError, match="another process is writing this run"):
        compare(job(project, None, resume=project / "run"))
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "--resume run" in err
    assert "finishing this block" in err
    run = Run.open(project / "run")
    assert 1 <= len(run.done()) < run.manifest["blocks"]
    assert not list((project / "run").rglob("*.tmp"))


@pytest.mark.parametrize("when", ["tokens-00002", "result.json"])
def test_a_full_disk_keeps_what_is_recorded(
    project: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Exit 4 with the command that resumes, in the middle and at the end."""
    compare(job(project, "whole"))
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if when in str(target):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError) as caught:
        compare(job(project))
    assert caught.value.exit_code == 4
    text = str(caught.value)
    assert "cannot be written (No space left on device): free some space" in text
    assert f"Resume with: evalharness compare a b --resume {project / 'run'}" in text
    assert not list((project / "run").rglob("*.tmp"))
    assert len(Run.open(project / "run").done()) >= 2
    monkeypatch.setattr(os, "replace", replace)
    compare(job(project, None, resume=project / "run"))
    assert stable(project / "run") == stable(project / "whole")


def test_a_process_that_dies_before_its_manifest_leaves_nothing_in_the_way(project: Path) -> None:
    """The same command begins again."""
    (project / "run" / "records").mkdir(parents=True)
    (project / "run" / "lock").touch()
    (project / "run" / "manifest.json.tmp").write_text("{")
    result, _ = compare(job(project))
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("module", "layer"), [("mlp.down_proj", 1), ("self_attn.q_proj", 0), ("input_layernorm", 1)]
)
def test_the_first_module_that_yields_nan_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, module: str, layer: int
) -> None:
    """Once a block, with the document and position it first shows at."""
    load = loading.load

    def broken(spec: Any, **more: Any) -> Any:
        loaded = load(spec, **more)
        if spec.name == "int4":
            with torch.no_grad():
                part = loaded.model.get_submodule(f"model.layers.{layer}.{module}")
                part.weight[3] = float("nan")
        return loaded

    monkeypatch.setattr(loading, "load", broken)
    result, _ = compare(job(project))
    assert result.exit_code != 0
    message = result.anomalies[0].message
    assert message.startswith("int4: NaN or Inf logits")
    assert message.endswith(f"the first module that yields any is model.layers.{layer}.{module}")


def test_out_of_memory_at_the_smallest_batch_tells_how_to_go_on(
    project: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 4; the blocks before are kept."""
    from evalharness.pair.texts.token_pass import TokenPass

    measure = TokenPass._run
    blocks = 0

    def scarce(self: TokenPass, block: Any, count: Any) -> Any:
        nonlocal blocks
        blocks += self.probe is not None
        if blocks > 3:
            raise MemoryError
        return measure(self, block, count)

    monkeypatch.setattr(TokenPass, "_run", scarce)
    with pytest.raises(
        RunError, match=r"out of memory on cpu .* Resume with: .* --resume"
    ) as caught:
        compare(job(project))
    assert caught.value.exit_code == 4
    assert len(Run.open(project / "run").done()) == 3


@pytest.fixture
def texts_only(project: Path) -> Path:
    """The project without the layer probe."""
    suite = project / "suite.yaml"
    text = suite.read_text().replace("probes: [layers]\nlayers: {windows: 4}\n", "")
    suite.write_text(text)
    return project


def test_models_that_do_not_fit_together_give_the_same_result(
    texts_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, through the cache: bit for bit."""
    compare(job(texts_only, "whole"))
    made = memory.plan_memory
    monkeypatch.setattr(
        "evalharness.workflow.measure.plan_memory",
        lambda *a: memory.MemoryPlan(
            "in_turn", *(vars(made(*a))[k] for k in ("batch_size", "chunk")), ()
        ),
    )
    loaded: list[tuple[str, int]] = []
    load = loading.load
    sides: list[Any] = []

    def watched(spec: Any, **more: Any) -> Any:
        held = sum(p.numel() for s in sides for p in s.model.parameters())
        loaded.append((spec.name, held))
        sides.append(load(spec, **more))
        return sides[-1]

    monkeypatch.setattr(loading, "load", watched)
    compare(job(texts_only, "apart"))
    assert loaded == [("base", 0), ("int4", sides[0].model.lm_head.weight.numel())]
    assert stable(texts_only / "apart") == stable(texts_only / "whole")


def test_an_entry_that_vanishes_when_the_reference_is_gone_is_an_error(
    texts_only: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And resuming computes it again."""
    made = memory.plan_memory(
        *[getattr(job(texts_only), k) for k in ("reference", "candidate", "suite")]
    )
    monkeypatch.setattr(
        "evalharness.workflow.measure.plan_memory",
        lambda *a: memory.MemoryPlan("in_turn", made.batch_size, made.chunk, ()),
    )
    load = loading.load

    def careless(spec: Any, **more: Any) -> Any:
        if spec.name == "int4":
            next(root.rglob("*.safetensors")).unlink()
        return load(spec, **more)

    monkeypatch.setattr(loading, "load", careless)
    with pytest.raises(RunError, match=r"gone from the cache.* Resume with: .* --resume"):
        compare(job(texts_only))
    monkeypatch.setattr(loading, "load", load)
    result, _ = compare(job(texts_only, None, resume=texts_only / "run"))
    assert result.exit_code == 1


def test_ctrl_c_while_loading_a_resumed_run_still_tells_how_to_go_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost by then either."""
    Run.create(project / "run", {"identity": "x"}).close()

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "load", stop)
    with pytest.raises(Interrupted, match=r"Resume with: evalharness compare a b --resume"):
        compare(job(project, None, resume=project / "run"))
