"""From a policy file and those it extends to one `Policy`.

A gate's settings come from the first that gives them: the gate, the gate of the same id in the
policy it extends, ``defaults``, the extended policy's ``defaults``, the built-in defaults. Every
key remembers the file that gave it, so that an error points at the line to change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from evalharness.errors import nearest
from evalharness.run.assets import shipped
from evalharness.spec.base import Spec, parse
from evalharness.spec.policy import Blocks, Gate, GateSpec, GivenWaiver, Place, Policy, PolicySpec
from evalharness.spec.yamlfile import YamlFile, load_yaml

_BUILT_IN: Mapping[str, Any] = {
    "decide": "confident",
    "severity": "error",
    "on_missing": "fail",
    "on_inconclusive": "block",
    "on_anomalous": "block",
}
_OPTIONAL = ("max", "min", "relative_to", "unless", "min_n")
SHIPPED = ("recommended", "strict")  # what extends: evalharness:NAME may name


def read_policy(path: str | Path) -> Policy:
    """Read a policy and those it extends. Metrics are not checked: see `gates.load_policy`."""
    return resolve_policy(load_yaml(path))


def resolve_policy(file: YamlFile) -> Policy:
    """Make a `Policy` of a parsed file and those it extends."""
    chain = _chain(file)  # the most basic first
    settings, confidence, baseline = dict(_BUILT_IN), 0.95, None
    on_incomplete: Blocks = "block"
    baseline_place = None
    gates: dict[str, tuple[dict[str, Any], dict[str, Place], Place]] = {}
    waivers: list[GivenWaiver] = []
    for here, spec in chain:
        settings = settings | _given(spec.defaults)
        confidence = confidence if spec.confidence is None else spec.confidence
        on_incomplete = spec.on_incomplete or on_incomplete
        if spec.baseline is not None:
            baseline = here.named(spec.baseline, ("baseline",))
            baseline_place = Place(here, ("baseline",))
        inherited = dict(gates)
        own: dict[str, Place] = {}
        for index, gate in enumerate(spec.gates):
            place = Place(here, ("gates", index))
            given = _given(gate)
            gate_id = gate.id or default_id(_metric(gate, place), gate.scope)
            if gate_id in own:
                other = own[gate_id].file.line(own[gate_id].key)
                raise place.error(
                    f"a second gate with the id {gate_id!r} (the first is on line {other})",
                    ("id",) if gate.id else (),
                    "Give one of them another id.",
                )
            own[gate_id] = place
            data, places, _ = inherited.get(gate_id, ({}, {}, place))
            if gate_id not in inherited:
                _metric(gate, place)
            at = {key: Place(here, (*place.key, key)) for key in given}
            gates[gate_id] = ({**data, **given}, {**places, **at}, place)
        waivers += [
            GivenWaiver(given_waiver, Place(here, ("waivers", index)))
            for index, given_waiver in enumerate(spec.waivers)
        ]
    if not gates:
        raise file.error("no gate is given, so nothing could fail", ("gates",), "Add one.")
    return Policy(
        name=chain[-1][1].name or file.path.stem,
        path=file.path,
        confidence=confidence,
        baseline=baseline,
        on_anomalous=settings["on_anomalous"],
        gates=tuple(_gate(i, settings, *parts) for i, parts in gates.items()),
        waivers=tuple(waivers),
        baseline_place=baseline_place,
        on_incomplete=on_incomplete,
        sources=(*(here.path for here, _ in chain), *([] if baseline is None else [baseline])),
    )


def default_id(metric: str, scope: Mapping[str, str]) -> str:
    """``task.score.shift[task=arc_*]``: the metric and, where there is one, its scope."""
    inside = ",".join(f"{key}={value}" for key, value in scope.items())
    return f"{metric}[{inside}]" if inside else metric


def did_you_mean(word: str, known: Collection[str], what: str) -> str:
    """The nearest of ``known`` as a remedy, or all of them when none is near."""
    hint = nearest(word, known)
    return hint[:1].upper() + hint[1:] if hint else f"{what}: {', '.join(known)}."


def _chain(file: YamlFile) -> list[tuple[YamlFile, PolicySpec]]:
    chain: list[tuple[YamlFile, PolicySpec]] = []
    seen: set[Path] = set()
    while True:
        if file.path.resolve() in seen:
            raise file.error("refers to itself through `extends`", ("extends",))
        seen.add(file.path.resolve())
        spec = parse(PolicySpec, file)
        chain.insert(0, (file, spec))
        if spec.extends is None:
            return chain
        file = load_yaml(_extended(file, spec.extends))


def _extended(file: YamlFile, name: str) -> Path:
    if name.startswith("evalharness:"):
        wanted = name.removeprefix("evalharness:")
        path = shipped("gates").get(wanted) if wanted in SHIPPED else None
        if path is None:
            remedy = did_you_mean(wanted, SHIPPED, "Those that ship")
            raise file.error(f"no policy {wanted!r} ships", ("extends",), remedy)
        return path
    path = file.named(name, ("extends",))
    if not path.is_file():
        remedy = "Give a file relative to this one, evalharness:recommended or evalharness:strict."
        raise file.error(f"no such file: {path}", ("extends",), remedy)
    return path


def _given(spec: Spec) -> dict[str, Any]:
    """The keys that the file itself gave; a null counts as not given."""
    return {k: getattr(spec, k) for k in spec.model_fields_set if getattr(spec, k) is not None}


def _metric(gate: GateSpec, place: Place) -> str:
    if gate.metric is None:
        raise place.error("required and missing", ("metric",), "Name a metric, such as kl.mean.")
    return gate.metric


def _gate(
    gate_id: str,
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    places: Mapping[str, Place],
    place: Place,
) -> Gate:
    unset: dict[str, Any] = {
        "scope": {},
        "each": False,
        "aggregate": "worst",
        **dict.fromkeys(_OPTIONAL),
    }
    return Gate(**{**unset, **settings, **data, "id": gate_id}, place=place, places=places)
