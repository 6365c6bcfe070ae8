"""The wheel, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.e2e


def test_the_wheel_runs_the_demo_outside_the_clone(tmp_path: Path) -> None:
    """Suites, policies and templates ship in it."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    wheel = next(tmp_path.glob("evalharness-*.whl"))
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)],
        check=True,
        capture_output=True,
    )
    # The dependencies are those of this environment, without the clone itself.
    import torch

    dependencies = Path(torch.__file__).parents[1]
    code = f"import site, sys; sys.path.append({str(dependencies)!r}); import evalharness; print(evalharness.__file__); from evalharness.cli.main import main; main()"  # noqa: E501
    done = subprocess.run(
        [str(python), "-c", code, "demo", "--limit", "32", "--out", "run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert str(tmp_path / "venv") in done.stdout, done.stdout + done.stderr
    assert done.returncode in (0, 1, 3), done.stdout + done.stderr
    assert (tmp_path / "run" / "report.html").stat().st_size > 50_000
