"""The Python API: what a program that imports us may rely on."""

from __future__ import annotations

import os
import pkgutil
import shlex
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from typer.testing import CliRunner

import evalharness
from evalharness.cli.main import app
from evalharness.errors import Interrupted
from evalharness.run.directory import Run
from evalharness.workflow.compare import compare
from tests.workflow.jobs import job

ROOT = Path(evalharness.__file__).parent.parent


def test_no_module_has_the_name_of_a_public_function() -> None:
    """Importing it would overwrite the function: `compare(...)` once worked only the first time."""
    modules = {m.name for m in pkgutil.iter_modules(evalharness.__path__)}
    functions = {
        n for n in evalharness.__all__ if isinstance(getattr(evalharness, n), FunctionType)
    }
    assert functions >= {"compare", "check", "load_run", "configure"}
    assert not functions & modules


@pytest.mark.e2e
def test_compare_may_be_called_again(project: Path) -> None:
    """Twice in one process, the second time with a policy of its own."""
    files = project / "base.yaml", project / "candidate.yaml"
    for out in ("one", "two"):
        run = evalharness.compare(
            *files, suite=project / "suite.yaml", gates=project / "gates.yaml", out=project / out
        )
        assert evalharness.load_run(project / out).result == run.result
        assert evalharness.check(run, project / "gates.yaml").verdict == run.result.verdict


@pytest.fixture(scope="module")
def fresh() -> list[str]:
    """What a fresh interpreter prints of our settings and, later, of our public names."""
    code = (
        "import os, sys; from evalharness import api; import numpy\n"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['NUMPY_MADVISE_HUGEPAGE'])\n"
        "import evalharness.workflow.compare, evalharness.api, evalharness.bisect.run\n"
        "from evalharness.workflow import compare, plan\n"
        "from evalharness.cli import main\n"
        "from evalharness import *\n"
        "import evalharness; from types import FunctionType\n"
        "names = ('check', 'compare', 'configure', 'load_run')\n"
        "print([n for n in names if not isinstance(getattr(evalharness, n), FunctionType)])"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY",)}
    env |= {"NUMPY_MADVISE_HUGEPAGE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_public_names_are_functions_whatever_was_imported_before(fresh: list[str]) -> None:
    """Also after every module that once overwrote one of them."""
    assert fresh[1] == "[]"


@pytest.mark.e2e
def test_the_api_gives_estimates_of_a_stored_run(project: Path) -> None:
    """load_run, metric and check."""
    result, run = compare(job(project))
    loaded = evalharness.load_run(run.path)
    stored = next(m for m in result.metrics if m.id == "kl.mean" and m.scope == {})
    assert loaded.metric("kl.mean") == stored
    assert evalharness.check(loaded, project / "gates.yaml").verdict == "FAIL"


@pytest.mark.e2e
def test_the_resume_command_of_the_api_can_be_typed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every option that was given, quoted; it finishes the run, from another program."""
    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 60)
    candidate = project / "a candidate's.yaml"
    candidate.write_text((project / "candidate.yaml").read_text())
    write = Run.write_block

    def interrupted(self: Run, block: str, tables: Any) -> None:
        write(self, block, tables)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "write_block", interrupted)
    with pytest.raises(Interrupted) as caught:
        evalharness.compare(
            project / "base.yaml",
            candidate,
            suite=project / "suite.yaml",
            gates=project / "gates.yaml",
            out=project / "my run",
            device="cpu",
            limit=4,
        )
    monkeypatch.setattr(Run, "write_block", write)
    said, _, command = str(caught.value).partition("Resume with: ")
    assert said == "interrupted. What was recorded is kept. "
    words = shlex.split(command)
    assert words[:4] == ["evalharness", "compare", str(project / "base.yaml"), str(candidate)]
    assert dict(zip(words[4::2], words[5::2], strict=True)) == {
        "--suite": str(project / "suite.yaml"),
        "--gates": str(project / "gates.yaml"),
        "--device": "cpu",
        "--limit": "4",
        "--resume": str(project / "my run"),
    }
    assert CliRunner().invoke(app, words[1:]).exit_code == 1  # kl.mean fails
    run = evalharness.load_run(project / "my run")
    assert len(run.run.done()) == run.run.manifest["blocks"] > 1
    assert run.metric("kl.mean").clusters == 4


def test_the_api_has_the_settings_of_the_command_line(fresh: list[str]) -> None:
    """They are there before NumPy and torch are loaded, and never replace the user's own."""
    assert fresh[0].split() == ["PASSIVE", "1"]


def test_offline_is_a_setting_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `--offline` sets it."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    evalharness.configure(offline=True)
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["HF_DATASETS_OFFLINE"]) == ("1", "1")
