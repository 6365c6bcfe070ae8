"""The main job on two real models."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from evalharness.spec.schemas import schemas
from tests.e2e.conftest import DEMO, ROOT, Ran, evalharness

pytestmark = pytest.mark.e2e


def result(path: Path) -> dict[str, Any]:
    data = json.loads((path / "result.json").read_text())
    jsonschema.validate(data, schemas()["result"])
    assert isinstance(data, dict)
    return data


def test_eight_bits_pass_the_demo_policy(demo: Callable[[int], Ran]) -> None:
    """Exit 0, every blocking gate inside its limit with its whole interval."""
    code, path, stdout, stderr = demo(8)
    assert code == 0, stdout + stderr
    found = result(path)
    assert found["verdict"] == "PASS"
    assert "PASS" in stdout
    assert str(path / "report.html") in stdout.replace("\n", "")


def test_two_bits_fail_the_demo_policy(demo: Callable[[int], Ran]) -> None:
    """Exit 1; each failed gate says what was measured, the limit and the worst offender."""
    code, path, stdout, _ = demo(2)
    assert code == 1, stdout
    failed = {g["metric"]: g for g in result(path)["gates"] if g["verdict"] == "FAIL"}
    assert {"perplexity.ratio", "kl.mean", "top1.agreement"} <= set(failed)
    assert "Worst: token at pydoc/" in failed["kl.mean"]["reason"]
    assert "Worst: layer model.layers." in failed["layer.error.total"]["reason"]


def test_the_report_stands_alone(demo: Callable[[int], Ran]) -> None:
    """No script, nothing fetched, both sides and every gate in it."""
    _, path, _, _ = demo(8)
    html = (path / "report.html").read_text()
    found = result(path)
    assert "<script" not in html
    # References within the page (url(#…), href="#…") are all there may be.
    assert not re.search(r"src=|@import|url\((?!#)|href=\"(?!#)", html)
    for gate in found["gates"]:
        assert gate["id"].split("[")[0] in html
    junit = ET.parse(path / "junit.xml").getroot()
    assert len(list(junit.iter("testcase"))) == len(found["gates"])


def test_every_gate_is_a_pytest_item(demo: Callable[[int], Ran]) -> None:
    """Green for the run that passed, red with value and limit for the one that failed."""
    policy = ROOT / "gates" / "demo.yaml"
    outcomes = {}
    for bits in (8, 2):
        _, path, _, _ = demo(bits)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                str(policy),
                "--evalharness-run",
                str(path),
                "-q",
                "-p",
                "no:cacheprovider",
            ],
            capture_output=True,
            text=True,
            cwd=path,
        )
        outcomes[bits] = (done.returncode, done.stdout)
    assert outcomes[8][0] == 0, outcomes[8][1]
    assert outcomes[2][0] == 1
    assert "kl.mean is" in outcomes[2][1]
    assert "Traceback" not in outcomes[2][1]


def test_gating_again_takes_no_model(demo: Callable[[int], Ran]) -> None:
    """The stored records of the 8-bit run fail a tighter policy."""
    _, path, _, _ = demo(8)
    strict = path.parent / "strict.yaml"
    strict.write_text("version: 1\ngates:\n  - {metric: memory.weights.ratio, max: 10%}\n")
    assert evalharness("gate", path, "--gates", strict).returncode == 1
    assert evalharness("gate", path, "--gates", ROOT / "gates" / "demo.yaml").returncode == 0


def test_a_model_against_itself_passes_the_default_policy(tmp_path: Path) -> None:
    """Exactly zero everywhere, and the result says that it is one model."""
    same = tmp_path / "same.yaml"
    same.write_text(f"from: {DEMO / 'base.yaml'}\nname: copy\n")
    done = evalharness(
        "compare",
        DEMO / "base.yaml",
        same,
        "--suite",
        "quick",
        "--gates",
        "default",
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(tmp_path / "run")
    assert found["compared"]["same_model"]
    assert all(g["verdict"] == "PASS" for g in found["gates"])
    for metric in found["metrics"]:
        if metric["id"].endswith("shift") or metric["id"].startswith("kl."):
            # A model can be such that no temperature fits its items: null with the reason, never 0.
            undefined = metric["value"] is None and metric["id"] == "temperature.shift"
            assert (undefined and metric["reason"]) or metric["value"] == 0, metric
    assert all(layer["median"] == 0 for layer in found["layers"])


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
        [str(python), "-c", code, "demo", "--limit", "20", "--out", "run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert str(tmp_path / "venv") in done.stdout, done.stdout + done.stderr
    assert done.returncode in (0, 1, 3), done.stdout + done.stderr
    assert (tmp_path / "run" / "report.html").stat().st_size > 50_000
