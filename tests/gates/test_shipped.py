"""The policies that ship: valid, ordered in strictness, and decidable on what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalharness.gates import Policy, Sizes, check_resolvable, decide, load_policy
from evalharness.metrics import REGISTRY
from evalharness.run.assets import shipped
from evalharness.spec.estimate import Estimate

NAMES = ("default", "demo", "recommended", "strict")
TASK = {"task": "arc_easy", "metric": "acc"}


class Identical:
    """A model against itself: every metric at its identity, without spread."""

    def scopes(self, metric: str) -> list[dict[str, str]]:
        if metric.startswith("task."):
            return [TASK]
        if metric.startswith("layer."):
            return [{"layer": f"model.layers.{i}"} for i in range(3)]
        return [{}]

    def estimate(self, metric: str, scope: dict[str, str], confidence: float) -> Estimate:
        value = REGISTRY[metric].identity
        return Estimate(id=metric, scope=scope, value=value, low=value, high=value, clusters=64)


def load(name: str) -> Policy:
    return load_policy(shipped("gates")[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_policy_is_valid_and_can_block(name: str) -> None:
    """Against the metrics that are registered."""
    assert any(gate.severity == "error" for gate in load(name).gates)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_against_itself_passes(name: str) -> None:
    """Every gate, those that only warn included."""
    decision = decide(load(name), Identical())
    assert [g.id for g in decision.gates if g.verdict != "PASS" and g.id != "smaller"] == []
    assert (decision.verdict, decision.exit_code) == ("PASS", 0)


@pytest.mark.parametrize("name", NAMES)
def test_editors_are_told_the_schema(name: str) -> None:
    """In the first line, where they look."""
    first = shipped("gates")[name].read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=../schemas/policy.json"


@pytest.mark.parametrize(("name", "items"), [("default", 60), ("demo", 100), ("recommended", 345)])
def test_a_policy_is_decidable_at_the_size_it_names(name: str, items: int) -> None:
    """64 documents, and as many items as its first lines say."""
    check_resolvable(load(name), Sizes({"text": 64}, {"task": items}))


@pytest.mark.parametrize(
    ("loose", "tight"), [("default", "recommended"), ("recommended", "strict")]
)
def test_each_policy_is_tighter_than_the_one_before(loose: str, tight: str) -> None:
    """Gate by gate."""
    before = {gate.id: gate for gate in load(loose).gates}
    for gate in load(tight).gates:
        old = before[gate.id]
        if gate.max and old.max:
            assert gate.max.number <= old.max.number
        if gate.min and old.min:
            assert gate.min.number >= old.min.number


def test_the_policies_satisfy_the_schema() -> None:
    """What editors check is what the parser takes."""
    import jsonschema
    import yaml

    from evalharness.spec.policy import PolicySpec

    schema = json.loads(json.dumps(PolicySpec.model_json_schema()))
    for path in shipped("gates").values():
        jsonschema.validate(yaml.safe_load(Path(path).read_text()), schema)
