"""Random policies, as a person might write them and as nobody should."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import yaml

from evalharness.metrics import REGISTRY

METRICS = [m for m in REGISTRY.values() if not m.is_maximum]
# More often than their number: what the fuzzed policies are about.
FAVOURITES = [
    "kl.mean",
    "perplexity.ratio",
    "top1.agreement",
    "task.score.shift",
    "layer.error.total",
    "weights.bits_per_weight",
    "memory.weights.ratio",
]
SCOPES: dict[str, list[str]] = {
    "corpus": ["a", "*"],
    "task": ["quiz", "q*"],
    "layer": ["*", "model.layers.*"],
    "slice": ["kind=x", "*"],
}
LIMITS = [-1.0, -0.02, 0.0, 1e-6, 0.01, 0.2, 0.9, 1.0, 1.05, 5.0, 40.0, 1e6]


def random_policy(seed: int) -> str:
    """The text of a policy file; most are valid."""
    r = random.Random(seed)
    data: dict[str, Any] = {"version": 1}
    if r.random() < 0.3:
        data["confidence"] = r.choice([0.9, 0.95, 0.99])
    if r.random() < 0.15:
        data["on_incomplete"] = r.choice(["block", "warn"])
    if r.random() < 0.4:
        data["defaults"] = _settings(r)
    if r.random() < 0.03:
        data["extends"] = r.choice(["evalharness:recommended", "evalharness:strict", "gone.yaml"])
    data["gates"] = [_gate(r, k) for k in range(r.choice([1, 1, 2, 3, 5]))]
    if r.random() < 0.4:
        data["waivers"] = [_waiver(r, g) for g in data["gates"] if r.random() < 0.7]
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=r.random() < 0.2)


def _settings(r: random.Random) -> dict[str, Any]:
    choices = {
        "decide": ["confident", "not-worse", "point"],
        "severity": ["error", "warn", "info"],
        "min_n": [2, 10, 30],
        "on_missing": ["fail", "inconclusive"],
        "on_inconclusive": ["block", "warn"],
        "on_anomalous": ["block", "warn"],
    }
    return {k: r.choice(v) for k, v in choices.items() if r.random() < 0.15}


def _gate(r: random.Random, k: int) -> dict[str, Any]:
    metric = REGISTRY[r.choice(FAVOURITES)] if r.random() < 0.7 else r.choice(METRICS)
    rule: dict[str, Any] = {"id": f"gate {k}", "metric": metric.id, **_settings(r)}
    keys = [key for key in metric.scope_keys if key in SCOPES]
    if keys and r.random() < 0.35:
        key = r.choice(keys)
        rule["scope"] = {key: r.choice(SCOPES[key])}
    rule |= _limits(r, metric)
    if r.random() < 0.2:
        rule["each"] = True
    elif r.random() < 0.1:
        rule["aggregate"] = "mean"
    if "max" in rule and "min" not in rule and r.random() < 0.25:
        other = REGISTRY[r.choice(FAVOURITES)]
        rule["unless"] = {
            "max": rule["max"] + r.choice([0.01, 1, 100]),
            "any": [{"metric": other.id, **_limits(r, other)}],
        }
    return rule


def _limits(r: random.Random, metric: Any) -> dict[str, Any]:
    if metric.direction == "none":
        return {"min": -r.choice(LIMITS[3:]), "max": r.choice(LIMITS[3:])}
    return {"max" if metric.direction == "lower" else "min": r.choice(LIMITS)}


def _waiver(r: random.Random, rule: dict[str, Any]) -> dict[str, Any]:
    days = r.choice([-400, -1, 0, 5, 400])
    waiver = {
        "gate": rule["id"],
        "reason": "known",
        "expires": dt.date.today() + dt.timedelta(days),
    }
    if "max" in rule and r.random() < 0.3:
        waiver["max"] = rule["max"] + r.choice([0.1, 1e6])
    return waiver
