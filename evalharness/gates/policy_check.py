"""A policy held against what is known of metrics: before any model is loaded.

Ids, scope keys, units and directions belong to metrics. A rule that contradicts them would be
decided the wrong way round, so it is refused with the file, the line and what to write instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evalharness.gates.limits import tightened
from evalharness.gates.policy_files import did_you_mean, read_policy, resolve_policy
from evalharness.gates.scopes import matching
from evalharness.gates.suffix import check_suffix, own_value
from evalharness.metrics import REGISTRY, Metric
from evalharness.spec.limit import Limit
from evalharness.spec.plugins import refusal
from evalharness.spec.policy import (
    Condition,
    Gate,
    GivenWaiver,
    Place,
    Policy,
    Unless,
)
from evalharness.spec.yamlfile import KeyPath, YamlFile
from evalharness.stats import MOST_CONFIDENT

_SCOPE_KEYS = ("corpus", "slice", "task", "group", "metric", "layer", "bound")


def load_policy(path: str | Path) -> Policy:
    """Read and check a policy; every error names file, line and key."""
    policy = read_policy(path)
    check_policy(policy)
    return policy


def policy_from(file: YamlFile) -> Policy:
    """Check a policy that is already parsed."""
    policy = resolve_policy(file)
    check_policy(policy)
    return policy


def check_policy(policy: Policy) -> None:
    """Raise `InputError` for the first rule that a metric contradicts."""
    for gate in policy.gates:
        _check_gate(gate)
        _check_confidence(gate, policy.confidence)
    for waiver in policy.waivers:
        _check_waiver(waiver, policy)


def check_layers(policy: Policy, names: Sequence[str]) -> None:
    """Raise `InputError` for a gate whose layer globs match none of the modules ``names``."""
    for gate in policy.gates:
        glob = gate.scope.get("layer")
        if glob is not None and not matching({"layer": glob}, [{"layer": n} for n in names]):
            raise gate.error(
                f"layer={glob} matches no module that is probed",
                ("scope", "layer"),
                did_you_mean(glob, names, "They are"),
            )


def _check_gate(gate: Gate) -> None:
    info = _metric(gate, gate.metric, ())
    _scope(gate, gate.scope, info, ("scope",))
    if gate.each and "aggregate" in gate.places:
        raise gate.error("cannot be given together with each: true", ("aggregate",), "Drop one.")
    if gate.relative_to and gate.aggregate == "mean":
        raise gate.error(
            "cannot be given together with aggregate: mean, whose parts have values of their own",
            ("relative_to",),
            "Drop one.",
        )
    if gate.relative_to == "reference" and own_value(info) is None:
        raise gate.error(
            f"{gate.metric} has no value of the reference alone to be relative to",
            ("relative_to",),
            "Give a plain number, or use a metric with a .reference beside it.",
        )
    if gate.relative_to == "baseline" and gate.unless:
        raise gate.error("cannot be given together with relative_to: baseline", ("unless",))
    _limits(gate, gate.max, gate.min, info, gate.relative_to, ())
    if gate.unless:
        _check_unless(gate, gate.unless, info)


def _check_confidence(gate: Gate, confidence: float) -> None:
    """Refuse more confidence than resampled documents can give; conditions share the error."""
    conditions = gate.unless.any if gate.unless else ()
    parts = 1 + sum(not REGISTRY[c.metric].deterministic for c in conditions)
    if 1 - (1 - confidence) / parts > MOST_CONFIDENT + 1e-9:
        most = 1 - (1 - MOST_CONFIDENT) * parts
        among = f" shared by {parts} ways to pass" if parts > 1 else ""
        raise gate.place.file.error(
            f"a confidence of {confidence:.10g}{among} is more than resampling can show",
            ("confidence",),
            f"Give {most:.6g} or less"
            + (f", or fewer conditions to the gate {gate.id!r}." if parts > 1 else "."),
        )


def _check_unless(gate: Gate, unless: Unless, info: Metric) -> None:
    if unless.max is None and unless.min is None:
        raise gate.error(
            "neither max nor min is given", ("unless",), "Give the looser limit that is earned."
        )
    for side in ("max", "min"):
        loose, limit = getattr(unless, side), getattr(gate, side)
        if loose is None:
            continue
        if limit is None:
            raise gate.error(f"the gate has no {side} that this could loosen", ("unless", side))
        check_suffix(gate, loose, info, gate.relative_to, ("unless", side))
        if tightened(side, limit, loose):
            raise gate.error(
                f"must be looser than the gate's own {side} of {limit} (got {loose})",
                ("unless", side),
            )
    for index, condition in enumerate(unless.any):
        _check_condition(gate, condition, ("unless", "any", index))


def _check_condition(gate: Gate, condition: Condition, key: KeyPath) -> None:
    info = _metric(gate, condition.metric, key)
    _scope(gate, condition.scope, info, (*key, "scope"))
    _limits(gate, condition.max, condition.min, info, None, key)


def _check_waiver(waiver: GivenWaiver, policy: Policy) -> None:
    spec, place = waiver.spec, waiver.place
    gate = policy.gate(spec.gate)
    if gate is None:
        known = [g.id for g in policy.gates]
        remedy = did_you_mean(spec.gate, known, "Gates")
        raise place.error(f"no gate has the id {spec.gate!r}", ("gate",), remedy)
    info = REGISTRY[gate.metric]
    _scope(place, spec.match, info, ("match",))
    for side in ("max", "min"):
        cap, limit = getattr(spec, side), getattr(gate, side)
        if cap is None:
            continue
        if limit is None:
            raise place.error(f"the gate {gate.id!r} has no {side} that this could loosen", (side,))
        check_suffix(place, cap, info, gate.relative_to, (side,))
        if tightened(side, limit, cap):
            raise place.error(
                f"must be looser than the gate's own {side} of {limit} (got {cap})", (side,)
            )


def _direction(
    gate: Gate,
    info: Metric,
    top: Limit | None,
    bottom: Limit | None,
    key: KeyPath,
) -> None:
    """Refuse a lone min where lower is better, and a lone max where higher is."""
    wrong = {"lower": bottom and not top, "higher": top and not bottom}
    if wrong.get(info.direction):
        side, other = ("min", "max") if info.direction == "lower" else ("max", "min")
        raise gate.error(
            f"{info.direction} is better for {info.id}, so {side} alone would pass what is bad",
            (*key, side),
            f"Give {other}.",
        )


def _metric(gate: Gate, metric: str, key: KeyPath) -> Metric:
    if metric not in REGISTRY:
        remedy = did_you_mean(metric, sorted(REGISTRY), "Metrics") + refusal("metrics")
        raise gate.error(f"unknown metric {metric!r}", (*key, "metric"), remedy)
    info = REGISTRY[metric]
    if info.is_maximum:
        raise gate.error(
            f"{metric} is a maximum, which grows with the number of tokens: it is shown, "
            "never gated",
            (*key, "metric"),
            f"Gate {info.instead} instead.",
        )
    if info.ungated:
        why, _, remedy = info.ungated.partition(". ")
        raise gate.error(f"{metric} is shown, never gated: {why}", (*key, "metric"), f"{remedy}.")
    return info


def _scope(at: Gate | Place, scope: dict[str, str], info: Metric, key: KeyPath) -> None:
    for name in scope:
        if name not in info.scope_keys:
            known = ", ".join(info.scope_keys) or "none: it is measured over everything"
            remedy = f"Its scope keys: {known}."
            if "slice" in info.scope_keys and name not in _SCOPE_KEYS:
                remedy += (
                    f" If it is an attribute of documents, split the suite by it (slices: [{{by: "
                    f"{name}}}]) and write scope: {{slice: {name}={scope[name]}}}."
                )
            raise at.error(f"{info.id} is not narrowed by {name!r}", (*key, name), remedy)
    if info.bounds and key[-1:] == ("scope",) and scope.get("bound") not in info.bounds:
        found = scope.get("bound")
        raise at.error(
            f"{info.id} is of documents beyond a bound, and "
            + ("none is given" if found is None else f"{found!r} is none that is measured"),
            (*key, "bound") if found is not None else key,
            f'Write scope: {{bound: "{info.bounds[-3]}"}}; the bounds are '
            f"{', '.join(info.bounds)}.",
        )


def _limits(
    gate: Gate,
    top: Limit | None,
    bottom: Limit | None,
    info: Metric,
    relative_to: str | None,
    key: KeyPath,
) -> None:
    if top is None and bottom is None:
        raise gate.error(
            f"neither max nor min is given for {info.id}", key, "Give the limit it must keep."
        )
    for side, limit in (("max", top), ("min", bottom)):
        if limit is not None:
            check_suffix(gate, limit, info, relative_to, (*key, side))
    _direction(gate, info, top, bottom, key)
    if top and bottom and bottom.number > top.number:
        raise gate.error(
            f"must be at most max (got min {bottom} > max {top})", (*key, "min"), "Swap them."
        )
