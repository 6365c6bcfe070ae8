"""Jobs of the tiny project, planned as the command plans them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from evalharness.api import LoadedRun, compare
from evalharness.workflow.plan import plan_job

COMPARE = ("compare", "base.yaml", "--suite", "suite.yaml", "--gates", "gates.yaml")


def typed(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The comparison as a user types it, with these arguments besides the base and the policy."""
    command = [sys.executable, "-m", "evalharness", *COMPARE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=project)


def job(project: Path, out: str | None = "run", **more: Any) -> Any:
    files = {"base": "base.yaml", "candidate": "candidate.yaml"} | {
        k: more.pop(k) for k in ("base", "candidate") if k in more
    }
    options: dict[str, Any] = {
        "suite": project / "suite.yaml",
        "gates": project / "gates.yaml",
        "out": project / out if out else None,
    }
    return plan_job(project / files["base"], project / files["candidate"], **(options | more))


def compared(project: Path) -> LoadedRun:
    """What the public function returns for the project's own files."""
    return compare(
        project / "base.yaml",
        project / "candidate.yaml",
        suite=project / "suite.yaml",
        gates=project / "gates.yaml",
        out=project / "run",
    )
