"""The examples of CONTRIBUTING.md, built and installed as a package of somebody else's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
FILE = re.compile(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", re.M | re.S)
MOST_LINES = 40


def examples() -> dict[str, str]:
    """Every file of CONTRIBUTING.md by its path."""
    return dict(FILE.findall((ROOT / "CONTRIBUTING.md").read_text()))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the package; nothing is fetched."""
    project, site = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("site")
    for name, text in examples().items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    (project / "evalharness_example" / "__init__.py").touch()
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", *options, str(project)]
    subprocess.run(pip, check=True, capture_output=True)
    return site


def run(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``evalharness`` with the package on the path."""
    return subprocess.run(
        [sys.executable, "-m", "evalharness", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def compared(installed: Path, tiny: Callable[..., Path], tmp_path_factory: Any) -> Path:
    """A comparison that names all four: engine, probe, metric in a gate, section on the page."""
    folder: Path = tmp_path_factory.mktemp("comparison")
    model = {"path": str(tiny(0)), "engine": "float64", "device": "cpu"}
    candidate = {"path": str(tiny(0)), "dtype": "float32", "device": "cpu"}
    quantised = {"weights": {"bits": 4, "granularity": "channel"}}
    documents = [
        {"text": f"The quick brown fox {n} jumps over the lazy dog. " * 4} for n in range(12)
    ]
    (folder / "texts.jsonl").write_text("\n".join(json.dumps(d) for d in documents))
    files: dict[str, Any] = {
        "base": {"name": "tiny", "model": model},
        "candidate": {
            "name": "tiny-4bit",
            "model": candidate,
            "simulate": quantised,
            "manifest": {"tool": "<b>rounding</b>", "bits": 4},
        },
        "suite": {
            "name": "s",
            "corpora": [{"name": "texts", "path": "texts.jsonl"}],
            "window": {"tokens": 64},
            "probes": ["hidden_norm"],
            "hidden_norm": {"windows": 16},
        },
        "policy": {
            "defaults": {"min_n": 6},
            "gates": [
                {"metric": "surprise.rate", "max": 0.9},
                {"metric": "hidden.norm.shift", "max": 5},
            ],
        },
    }
    for name, data in files.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"version": 1, **data}))
    done = run(
        installed,
        folder,
        "compare",
        "base.yaml",
        "candidate.yaml",
        "--suite",
        "suite.yaml",
        "--gates",
        "policy.yaml",
        "--out",
        "run",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("name", [n for n in examples() if n.endswith(".py")])
def test_an_example_is_short(name: str) -> None:
    """Forty lines are enough for each."""
    assert len(examples()[name].splitlines()) <= MOST_LINES


def test_the_engine_ran_the_reference(compared: Path) -> None:
    """In double precision, as the compression manifest measures it."""
    result = json.loads((compared / "run" / "result.json").read_text())
    assert result["compared"]["reference"]["dtype"] == "float64"


def test_the_metric_and_the_probe_are_gated(compared: Path) -> None:
    """Both have an interval, and a verdict on it."""
    result = json.loads((compared / "run" / "result.json").read_text())
    gates = {g["metric"]: g for g in result["gates"]}
    for metric in ("surprise.rate", "hidden.norm.shift"):
        assert gates[metric]["verdict"] == "PASS"
        assert gates[metric]["low"] < gates[metric]["observed"] < gates[metric]["high"]


def test_the_sections_are_on_the_page(compared: Path) -> None:
    """With everything escaped that came from a file."""
    page = (compared / "run" / "report.html").read_text()
    assert "<h2>Recipe" in page or ">Recipe<" in page
    assert "&lt;b&gt;rounding&lt;/b&gt;" in page
    assert "<b>rounding</b>" not in page


def test_without_the_package_the_run_is_still_read(compared: Path, tmp_path: Path) -> None:
    """What it measured is shown; its gate cannot be decided again, and is named."""
    assert run(tmp_path, compared, "show", "run").returncode == 0
    again = run(tmp_path, compared, "gate", "run")
    assert again.returncode == 2
    assert "unknown metric 'surprise.rate'" in again.stderr
