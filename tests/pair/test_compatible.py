"""When two sides are one model, and what is said where only their weights are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalharness.gates import policy_from
from evalharness.pair.compatible import check_pair
from evalharness.results.assemble import build
from evalharness.results.judge import judge
from evalharness.run.directory import InMemory
from evalharness.spec.suite import Suite
from evalharness.spec.yamlfile import parse_yaml
from tests.synthetic.pair import Pair, run

RULES = "version: 1\nname: n\ngates: [{metric: kl.mean, max: 1, on_missing: inconclusive}]\n"


def test_the_same_weights_under_another_configuration_are_another_model(
    side: Callable[..., Any], suite: Suite
) -> None:
    """The keys that differ are named."""
    plain = side()
    assert check_pair(plain, side(), suite) == []
    # The directory's own file of weights is the same: the seed is.
    (said,) = check_pair(plain, side(rms_norm_eps=1e-2), suite)
    assert said == (
        "tiny0-None and tiny0-None hold the same weights under different configurations "
        "(rms_norm_eps: 1e-06 and 0.01), and so are not the same model"
    )


def found(**changed: str) -> Any:
    """The result of a run whose sides are alike but for these keys of the candidate's manifest."""
    made = run(
        Pair(0.2, blocks=1, without=("tokens", "items", "item_tokens"), same=True, documents=6)
    )
    side = made.manifest["sides"]["reference"]
    other = {**side, "manifest": {**side["manifest"], **changed}}
    known = made.manifest | {"sides": {"reference": side, "candidate": other}}
    changed_run = InMemory(known, made.tables)
    return build(changed_run, *judge(changed_run, policy_from(parse_yaml(RULES, Path("p.yaml")))))


@pytest.mark.parametrize(
    "key", [None, "fingerprint", "configuration_fingerprint", "tokenizer_fingerprint"]
)
def test_a_model_against_itself_is_the_same_in_everything(key: str | None) -> None:
    """Weights, configuration and tokenizer."""
    result = found(**({key: "other"} if key else {}))
    assert result.compared.same_model == (key is None)
    assert ("a model against itself" in result.headline) == (key is None)


def test_sides_that_differ_in_what_came_out_are_not_one_model() -> None:
    """Whatever their hashes say."""
    made = run(Pair(0.2, blocks=1, same=True, documents=6))
    rules = policy_from(parse_yaml(RULES, Path("p.yaml")))
    assert not build(made, *judge(made, rules)).compared.same_model


def test_what_was_wrong_on_loading_is_an_anomaly_of_the_run() -> None:
    """An exit of its own, whatever the gates say."""
    made = run(Pair(0.2, blocks=1, documents=6))
    side = made.manifest["sides"]["candidate"] | {"anomalies": ["int4: the head was replaced"]}
    known = made.manifest | {"sides": made.manifest["sides"] | {"candidate": side}}
    rules = policy_from(parse_yaml(RULES, Path("p.yaml")))
    _, decision, anomalies = judge(InMemory(known, made.tables), rules)
    assert decision.verdict == "ANOMALOUS"
    assert [(a.kind, a.message) for a in anomalies] == [("loading", "int4: the head was replaced")]
