"""The policies that ship: valid, ordered in strictness, and decidable on what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalharness.gates import Policy, Sizes, check_resolvable, decide, load_policy, needs
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
        if REGISTRY[metric].bounds:
            return [{"bound": bound} for bound in REGISTRY[metric].bounds]
        return [{}]

    def leaves(self, scope: dict[str, str]) -> frozenset[str]:
        return frozenset()

    def noise_unknown(self, metric: str, scope: dict[str, str]) -> None:
        """Nothing moved."""

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


@pytest.mark.parametrize(
    ("name", "documents", "items"),
    [("default", 20, 84), ("demo", 20, 32), ("recommended", 59, 381), ("strict", 124, 1400)],
)
def test_a_policy_is_decidable_at_the_size_it_names(name: str, documents: int, items: int) -> None:
    """With as many documents and items as its first lines say."""
    check_resolvable(load(name), Sizes({"text": documents}, {"task": items}))


@pytest.mark.parametrize(("name", "documents"), [("recommended", 59), ("strict", 99)])
def test_a_share_of_documents_needs_the_documents_that_can_show_it(
    name: str, documents: int
) -> None:
    """With fewer, none beyond the bound is no proof of so small a share: 0.95^59 = 4.8%."""
    found = {need.gate: need.to_decide for need in needs(load(name))}
    assert found["kl-broken"] == found["nll-broken"] == documents


@pytest.mark.parametrize(
    ("loose", "tight"), [("default", "recommended"), ("recommended", "strict")]
)
def test_each_policy_is_tighter_than_the_one_before(loose: str, tight: str) -> None:
    """Gate by gate; it may have more of them."""
    before, after = ({gate.id: gate for gate in load(name).gates} for name in (loose, tight))
    assert set(before) <= set(after)
    for id, old in before.items():
        gate = after[id]
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
