"""``result.json`` of a run directory, read."""

from __future__ import annotations

import json
from pathlib import Path

from evalharness.errors import InputError
from evalharness.run.command import add_resume
from evalharness.spec.result import SCHEMA_VERSION, Result


def load_result(path: Path) -> Result:
    """Read ``result.json`` of a run directory."""
    file = path / "result.json"
    if not file.is_file():
        raise InputError(
            "the run has no result.json",
            path=path,
            remedy=f"It did not finish: {add_resume(path)}",
        )
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid JSON ({error})", path=file) from None
    found = data.get("schema_version") if isinstance(data, dict) else None
    if type(found) is not int or not 1 <= found <= SCHEMA_VERSION:
        raise InputError(
            f"must be from 1 to {SCHEMA_VERSION}, which this evalharness reads (got {found})",
            path=file,
            key="schema_version",
            remedy="Upgrade evalharness.",
        )
    try:
        return Result.model_validate(data)
    except ValueError as error:
        raise InputError(f"not a result ({str(error).splitlines()[0]})", path=file) from None
