"""The main job on two real models."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from tests.e2e.conftest import ROOT, Ran, evalharness, result

pytestmark = pytest.mark.e2e


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
