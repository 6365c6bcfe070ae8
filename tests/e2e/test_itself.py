"""A real model against itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import DEMO, evalharness, result

pytestmark = pytest.mark.e2e


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
