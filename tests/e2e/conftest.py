"""The real pair, and full demo runs, made once a session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from evalharness.spec.schemas import schemas

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "suites" / "demo"

Ran = tuple[int, Path, str, str]


def evalharness(
    *arguments: str | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "evalharness", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )


def result(path: Path) -> dict[str, Any]:
    """`result.json` of a run, held against its schema."""
    data = json.loads((path / "result.json").read_text())
    jsonschema.validate(data, schemas()["result"])
    assert isinstance(data, dict)
    return data


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Ran]:
    """Run the whole demo at so many bits; returns exit code, run directory, stdout, stderr."""
    ran: dict[int, Ran] = {}

    def run(bits: int) -> Ran:
        if bits not in ran:
            folder = tmp_path_factory.mktemp(f"demo{bits}")
            candidate = folder / "candidate.yaml"
            candidate.write_text(
                f"from: {DEMO / 'base.yaml'}\nname: int{bits}\n"
                f"simulate: {{weights: {{bits: {bits}, symmetric: false, granularity: group, "
                "group_size: 32, exclude: [lm_head]}}\n"
            )
            out = folder / "run"
            done = evalharness("demo", "--candidate", candidate, "--out", out)
            ran[bits] = (done.returncode, out, done.stdout, done.stderr)
        return ran[bits]

    return run


@pytest.fixture(scope="session")
def real_pair() -> Any:
    """SmolLM2-135M and its 4-bit simulation in float32, as two sides."""
    from evalharness.engines.loading import load
    from evalharness.pair.side import Side
    from evalharness.spec.model import load_model_spec

    sides = []
    for name in ("base", "candidate"):
        spec = load_model_spec(DEMO / f"{name}.yaml")
        model = spec.model.model_copy(update={"dtype": "float32"})
        sides.append(Side(load(spec.model_copy(update={"model": model}))))
    return sides
