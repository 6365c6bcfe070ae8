"""JSON Schemas of every file, generated from the typed models."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from evalharness.errors import InputError, nearest


def schemas() -> dict[str, dict[str, Any]]:
    """Schema of each kind of file."""
    from evalharness.spec.combined import Combined
    from evalharness.spec.model import ModelSpec
    from evalharness.spec.policy import PolicySpec
    from evalharness.spec.result import Result
    from evalharness.spec.suite import Suite

    kinds: dict[str, type[BaseModel]] = {
        "spec": ModelSpec,
        "suite": Suite,
        "policy": PolicySpec,
        "result": Result,
        "combined": Combined,
    }
    written = ("result", "combined")  # by us, so that their defaults are always there
    found = {}
    for name, kind in kinds.items():
        found[name] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"evalharness {name}",
            **kind.model_json_schema(mode="serialization" if name in written else "validation"),
        }
    # `from` names another file, and what it gives need not be given again.
    spec = found["spec"]
    spec["properties"]["from"] = {"type": "string", "description": "A model file to start from."}
    spec["anyOf"] = [{"required": ["from", "name"]}, {"required": spec.pop("required")}]
    return found


def schema_text(kind: str) -> str:
    """The schema of ``kind`` as text."""
    known = schemas()
    if kind not in known:
        hint = nearest(kind, known)
        raise InputError(
            f"unknown kind {kind!r}",
            key="KIND",
            remedy=(hint[:1].upper() + hint[1:]) or f"Known: {', '.join(known)}.",
        )
    return json.dumps(known[kind], indent=1, ensure_ascii=False) + "\n"
