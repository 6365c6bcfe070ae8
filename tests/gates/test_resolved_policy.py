"""The copy of a policy that a run keeps decides as the original does, and needs no other file."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalharness.errors import InputError
from evalharness.gates import Policy, load_policy, result_ids
from evalharness.gates.resolved_policy import resolved_text
from evalharness.metrics import REGISTRY
from evalharness.run.assets import shipped
from tests.gates.fakes import FakeEstimates, estimate
from tests.judges.policies import random_policy


def copied(policy: Policy, folder: Path) -> Policy:
    """``policy`` from its copy in ``folder``."""
    file = folder / "policy.yaml"
    file.write_text(resolved_text(policy))
    return load_policy(file)


def same(a: Policy, b: Policy) -> bool:
    """All that decides."""
    keys = ("name", "confidence", "on_anomalous", "on_incomplete", "gates", "waivers")
    scopes = [{"task": "quiz", "metric": "acc"}, {"layer": "model.layers.0"}, {"corpus": "a"}]
    run = FakeEstimates(*(estimate(id, 0.0, scope=s) for id in REGISTRY for s in scopes))
    names = [[result_ids(gate, run) for gate in policy.gates] for policy in (a, b)]  # type: ignore[arg-type]
    return names[0] == names[1] and all(getattr(a, k) == getattr(b, k) for k in keys)


@pytest.mark.parametrize("name", shipped("gates"))
def test_the_copy_of_a_shipped_policy_decides_as_it_does(name: str, tmp_path: Path) -> None:
    """Gates, ids of results, waivers and settings."""
    policy = load_policy(shipped("gates")[name])
    assert same(policy, copied(policy, tmp_path))


def test_the_copy_of_any_policy_decides_as_it_does(tmp_path: Path) -> None:
    """Of random ones, as far as they are valid."""
    (tmp_path / "run").mkdir()
    tried = 0
    for seed in range(40):
        file = tmp_path / "p.yaml"
        file.write_text(random_policy(seed))
        try:
            policy = load_policy(file)
        except InputError:
            continue
        tried += 1
        assert same(policy, copied(policy, tmp_path / "run")), file.read_text()
    assert tried > 20


def test_the_copy_needs_neither_what_it_extends_nor_the_baseline(tmp_path: Path) -> None:
    """Limits keep every digit and their suffix; a changed gate keeps its own settings."""
    (tmp_path / "base.yaml").write_text(
        "defaults: {min_n: 7, on_anomalous: warn}\nconfidence: 0.9\n"
        "gates:\n  - {metric: kl.mean, max: 0.012345678901234567}\n"
        "  - {id: t, metric: task.score.shift, min: -1.23456789012345pp, each: true}\n"
    )
    file = tmp_path / "own.yaml"
    file.write_text(
        "extends: base.yaml\nbaseline: stored.json\ngates:\n"
        "  - {metric: top1.agreement, min: -5%, relative_to: baseline}\n"
        "  - {id: t, severity: warn}\n"
    )
    policy = load_policy(file)
    assert [p.name for p in policy.sources] == ["base.yaml", "own.yaml", "stored.json"]
    (tmp_path / "run").mkdir()
    copy = copied(policy, tmp_path / "run")
    assert same(policy, copy)
    assert copy.baseline == tmp_path / "run" / "baseline.json"
    assert [p.name for p in copy.sources] == ["policy.yaml", "baseline.json"]
