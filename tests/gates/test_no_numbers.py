"""A measured number that is none is an anomaly of the run, whether or not a gate asks for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evalharness.gates import find_anomalies, policy_from
from evalharness.metrics import REGISTRY, Estimates
from evalharness.results.judge import judge
from evalharness.run.directory import InMemory
from evalharness.spec.yamlfile import parse_yaml
from evalharness.testing.invariance import columns_read
from evalharness.testing.records import Arrow, Tables, estimates, synthetic
from tests.synthetic.manifest import manifest


def two() -> Tables:
    return synthetic(documents=2)


@cache
def readers() -> dict[tuple[str, str], list[str]]:
    """The metrics that read a column, by the kind of its records and its name."""
    found: dict[tuple[str, str], list[str]] = {}
    for id in REGISTRY:
        for place in columns_read(REGISTRY[id], two):
            found.setdefault(place, []).append(id)
    return found


def measured(found: Estimates, metrics: list[str]) -> set[str]:
    """What has a value, in every scope."""
    every = ((id, scope) for id in metrics for scope in found.scopes(id))
    return {f"{i} {s}" for i, s in every if found.estimate(i, s, 0.9).value is not None}


def broken(kind: str, column: str, value: float) -> Tables:
    tables = two()
    tables[kind].loc[tables[kind].index[-1], column] = value
    return tables


SOUND = two()
ESTIMATED = estimates(SOUND)  # remembers what it was asked
COLUMNS = [(k, c, np.nan) for k in SOUND for c in SOUND[k] if SOUND[k][c].dtype == np.float64]
INFINITE = [("tokens", "kl"), ("items", "conf_ref"), ("tasks", "candidate"), ("weights", "err_sq")]


@pytest.mark.parametrize(("kind", "column", "value"), COLUMNS + [(*x, np.inf) for x in INFINITE])
def test_whatever_takes_the_value_of_a_metric_away_is_an_anomaly(
    kind: str, column: str, value: float
) -> None:
    """Of every column that holds numbers, by trying."""
    metrics = readers().get((kind, column), [])
    found = estimates(broken(kind, column, value))
    if lost := measured(ESTIMATED, metrics) - measured(found, metrics):
        anomalies = find_anomalies(found, compressed=False)
        assert [a.message for a in anomalies if column in a.message], lost


def test_sound_records_have_none_and_what_was_noted_is_not_noted_again() -> None:
    """Whoever measured knows better why."""
    assert find_anomalies(estimates(SOUND), compressed=False) == []
    tables = broken("tokens", "kl", np.nan)
    noted = pd.DataFrame([{"kind": "nonfinite logits", "message": "candidate: NaN logits"}])
    found = estimates({**tables, "anomalies": noted})
    assert find_anomalies(found, compressed=False) == []


def test_a_policy_that_does_not_ask_for_it_is_not_green() -> None:
    """It says what, and where."""
    rules = "gates: [{metric: top1.agreement, min: 1%}]"
    run = InMemory(
        manifest(lambda text: text, 2, []), Arrow(broken("tokens", "total_variation", np.nan))
    )
    _, decision, _ = judge(run, policy_from(parse_yaml(rules, Path("p.yaml"))))
    assert (decision.verdict, decision.exit_code) == ("ANOMALOUS", 3)
    assert "total_variation is NaN or infinite in 1 of " in decision.headline
