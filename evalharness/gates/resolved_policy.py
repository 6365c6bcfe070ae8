"""A policy as one file: what it extends and its defaults worked in, so that it needs no other."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import yaml

from evalharness.gates.policy_files import default_id
from evalharness.spec.base import Spec
from evalharness.spec.limit import Limit
from evalharness.spec.policy import Gate, Policy

BASELINE = "baseline.json"  # the copy of its baseline, beside it
_HEAD = "# What this run was decided by, with every policy that it extends worked in.\n"


def resolved_text(policy: Policy) -> str:
    """The YAML of a policy that decides as ``policy`` does and refers to nothing but `BASELINE`."""
    data: dict[str, Any] = {"version": 1, "name": policy.name, "confidence": policy.confidence}
    if policy.baseline is not None:
        data["baseline"] = BASELINE
    data["on_incomplete"] = policy.on_incomplete
    data["defaults"] = {"on_anomalous": policy.on_anomalous}
    data["gates"] = [_gate(gate) for gate in policy.gates]
    if policy.waivers:
        data["waivers"] = [_plain(waiver.spec) for waiver in policy.waivers]
    return _HEAD + str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100))


def _gate(gate: Gate) -> dict[str, Any]:
    data = {k: v for k, v in vars(gate).items() if k not in ("place", "places")}
    # Results are named by the id where the author gave one, and by metric and scope where not.
    if "id" not in gate.places and gate.id == default_id(gate.metric, gate.scope):
        del data["id"]
    if gate.each:
        del data["aggregate"]  # says nothing beside it, and is refused
    return {k: _plain(v) for k, v in data.items() if v is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Limit):
        exact = Decimal(repr(value.number))
        return f"{exact * 100:f}{value.suffix}" if value.suffix else value.number
    if isinstance(value, Spec):
        return {k: _plain(getattr(value, k)) for k in value.model_fields_set}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
