"""The Python API: what a program that imports us may rely on."""

from __future__ import annotations

import os
import pkgutil
import shlex
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

import evalharness
from evalharness.workflow.interrupt import resume_command

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


@pytest.mark.e2e
def test_the_command_of_a_run_says_all_that_was_asked_for(project: Path) -> None:
    """So that the command which resumes it resumes the same comparison."""
    candidate = project / "a candidate.yaml"
    candidate.write_text((project / "candidate.yaml").read_text())
    run = evalharness.compare(
        project / "base.yaml",
        candidate,
        suite=project / "suite.yaml",
        gates=project / "gates.yaml",
        out=project / "run",
        device="cpu",
        limit=4,
    )
    words = shlex.split(resume_command(run.result.command, run.path))
    assert words[:4] == ["evalharness", "compare", str(project / "base.yaml"), str(candidate)]
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options == {
        "--suite": str(project / "suite.yaml"),
        "--gates": str(project / "gates.yaml"),
        "--device": "cpu",
        "--limit": "4",
        "--resume": str(run.path),
    }


def test_a_resume_command_names_the_run_once() -> None:
    """Whatever named it before goes, quoted or not, with a space or an equals sign."""
    command = "evalharness compare a.yaml 'b c.yaml' --out 'my run' --limit 3 --out=x --resume y"
    assert resume_command(command, Path("my run")) == (
        "evalharness compare a.yaml 'b c.yaml' --limit 3 --resume 'my run'"
    )


def test_the_api_has_the_settings_of_the_command_line() -> None:
    """They are there before NumPy and torch are loaded, and never replace the user's own."""
    code = (
        "import os, sys; from evalharness import api; import numpy; "
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['NUMPY_MADVISE_HUGEPAGE'])"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY",)}
    env |= {"NUMPY_MADVISE_HUGEPAGE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["PASSIVE", "1"], done.stderr


def test_offline_is_a_setting_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `--offline` sets it."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    evalharness.configure(offline=True)
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["HF_DATASETS_OFFLINE"]) == ("1", "1")
