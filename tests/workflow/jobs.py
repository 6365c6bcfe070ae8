"""Jobs of the tiny project, planned as the command plans them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evalharness.workflow.plan import plan_job


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
