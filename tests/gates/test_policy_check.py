"""Rules that contradict what is known of a metric are refused; messages are exact."""

from __future__ import annotations

import pytest

from evalharness.errors import InputError
from evalharness.gates import check_layers
from tests.gates.fakes import gate, policy


def refused(text: str) -> str:
    """The message for a policy of one gate on line 2, less its place."""
    with pytest.raises(InputError) as error:
        gate(text)
    return str(error.value).removeprefix("gates/p.yaml:2: gates[0]").removeprefix(".")


def test_an_unknown_metric_names_the_nearest() -> None:
    """A typing error is mended without opening the docs."""
    assert refused("metric: kl.meen, max: 1") == (
        "metric: unknown metric 'kl.meen'. Did you mean 'kl.mean' or 'kl.median' or 'kl.max'?"
    )


def test_an_unknown_scope_key_names_those_there_are() -> None:
    """A scope that a metric does not have would match nothing, ever."""
    assert refused("metric: nll.shift, scope: {task: arc}, max: 1") == (
        "scope.task: nll.shift is not narrowed by 'task'. Its scope keys: corpus, slice."
    )
    assert refused("metric: weights.bits_per_weight, scope: {layer: a}, max: 5") == (
        "scope.layer: weights.bits_per_weight is not narrowed by 'layer'. Its scope keys: none: it "
        "is measured over everything."
    )


def test_a_gate_needs_a_limit() -> None:
    """Otherwise it could not fail."""
    assert refused("metric: kl.mean") == (
        ": neither max nor min is given for kl.mean. Give the limit it must keep."
    )


def test_limits_may_not_cross() -> None:
    """A band from 2 to 1 is empty."""
    assert refused("metric: kl.mean, min: 2, max: 1") == (
        "min: must be at most max (got min 2 > max 1). Swap them."
    )


@pytest.mark.parametrize(
    ("rule", "side", "direction", "other"),
    [
        ("metric: perplexity.ratio, min: 1.02", "min", "lower", "max"),
        ("metric: top1.agreement, max: 99%", "max", "higher", "min"),
        ("metric: task.score.shift, max: 1pp", "max", "higher", "min"),
    ],
)
def test_a_rule_against_the_direction_is_refused(
    rule: str, side: str, direction: str, other: str
) -> None:
    """A peer's goal without a direction let perplexity go from 6 to 600."""
    metric = rule.split(",")[0].removeprefix("metric: ")
    assert refused(rule) == (
        f"{side}: {direction} is better for {metric}, so {side} alone would pass what is bad. "
        f"Give {other}."
    )


@pytest.mark.parametrize(
    "rule",
    [
        "metric: temperature.shift, min: -0.1",
        "metric: temperature.shift, max: 0.1",
        "metric: perplexity.ratio, min: 0.9, max: 1.02",
    ],
)
def test_bands_and_metrics_without_a_direction_take_either_side(rule: str) -> None:
    """A band says what is meant, whichever way is better."""
    assert gate(rule).gates


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "metric: task.score.shift, min: -2%",
            "min: '-2%' of a difference is ambiguous. Write -2pp for percentage points, or add "
            "relative_to: reference for a share of the reference's own value.",
        ),
        (
            "metric: nll.shift, max: 2%",
            "max: '2%' of a difference is ambiguous. Write 0.02.",
        ),
        (
            "metric: perplexity.ratio, max: 2%",
            "max: '2%' of a ratio is ambiguous: it may be 2% of the reference, or that much above "
            "it. Write 102% or 1.02 for 2% above it.",
        ),
        (
            "metric: kl.mean, max: 2%",
            "max: must be a number in nats/token (got '2%'). A percentage of nats/token has no "
            "meaning.",
        ),
        (
            "metric: kl.mean, max: 2pp",
            "max: points are for differences of fractions (got '2pp'; kl.mean is in nats/token). "
            "Write a number, such as 0.02.",
        ),
        (
            "metric: top1.agreement, min: 98pp",
            "min: points are for differences of fractions (got '98pp'; top1.agreement is in "
            "fraction). Write a number, such as 0.98.",
        ),
    ],
)
def test_a_limit_that_reads_two_ways_is_refused(rule: str, message: str) -> None:
    """A bare percentage of a difference is of what?"""
    assert refused(rule) == message


@pytest.mark.parametrize(
    ("rule", "number"),
    [
        ("metric: top1.agreement, min: 98%", 0.98),
        ("metric: perplexity.ratio, max: 102%", 1.02),
        ("metric: memory.weights.ratio, max: 30%", 0.30),
        ("metric: layer.error.total, max: 10%", 0.10),
        ("metric: brier.shift, max: 1pp", 0.01),
        ("metric: brier.shift, max: 0.01", 0.01),
        ("metric: task.score.shift, min: -5%, relative_to: reference", -0.05),
        ("metric: kl.mean, max: 5%, relative_to: baseline", 0.05),
    ],
)
def test_a_limit_that_reads_one_way_is_taken(rule: str, number: float) -> None:
    """Fractions, ratios of cost, points, and percentages of a named thing."""
    one = gate(rule).gates[0]
    limit = one.max or one.min
    assert limit is not None
    assert limit.number == number


def test_relative_to_the_reference_needs_its_own_value() -> None:
    """perplexity.ratio is relative already."""
    assert refused("metric: perplexity.ratio, max: 2%, relative_to: reference") == (
        "relative_to: perplexity.ratio has no value of the reference alone to be relative to. "
        "Give a plain number, or use a metric with a .reference beside it."
    )
    assert refused("metric: task.score.shift, min: -0.02, relative_to: reference") == (
        "min: must be a percentage of the reference's own value (got '-0.02'). Write -2%, or drop "
        "relative_to: reference."
    )
    assert refused("metric: task.score.shift, min: -2pp, relative_to: reference") == (
        "min: points cannot be relative to the reference. Write -2%."
    )


def test_a_maximum_is_never_gated() -> None:
    """It grows with the number of tokens: 8, 12, 16 as they go 5 k, 51 k, 512 k."""
    assert refused("metric: kl.max, max: 5") == (
        "metric: kl.max is a maximum, which grows with the number of tokens: it is shown, never "
        "gated. Gate kl.p999 instead."
    )


def test_a_bound_is_one_of_those_that_are_measured() -> None:
    """Another would be found missing only after the models have run."""
    bounds = "0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1."
    said = f'Write scope: {{bound: "0.2"}}; the bounds are {bounds}'
    assert refused('metric: kl.exceed_rate, scope: {bound: "0.3"}, max: 5%') == (
        "scope.bound: kl.exceed_rate is of documents beyond a bound, and '0.3' is none that is "
        f"measured. {said}"
    )
    assert refused("metric: kl.exceed_rate, max: 5%") == (
        f"scope: kl.exceed_rate is of documents beyond a bound, and none is given. {said}"
    )
    gate('metric: kl.exceed_rate, scope: {bound: "0.2", corpus: a}, max: 5%')


def test_each_and_aggregate_exclude_each_other() -> None:
    """One verdict a match, or one over all."""
    rule = "metric: task.flips, scope: {task: '*'}, max: 5%, each: true, aggregate: mean"
    assert refused(rule) == "aggregate: cannot be given together with each: true. Drop one."


@pytest.mark.parametrize(
    ("unless", "message"),
    [
        (
            "{max: 1.01, any: [{metric: weights.bits_per_weight, max: 5}]}",
            "unless.max: must be looser than the gate's own max of 1.02 (got 1.01)",
        ),
        (
            "{any: [{metric: weights.bits_per_weight, max: 5}]}",
            "unless: neither max nor min is given. Give the looser limit that is earned.",
        ),
        (
            "{min: 0.9, any: [{metric: weights.bits_per_weight, max: 5}]}",
            "unless.min: the gate has no min that this could loosen",
        ),
        (
            "{max: 1.05, any: [{metric: weights.bits, max: 5}]}",
            "unless.any[0].metric: unknown metric 'weights.bits'. Did you mean "
            "'weights.bits_per_weight' or 'weights.sparsity' or 'weights.two_of_four'?",
        ),
        (
            "{max: 1.05, any: [{metric: weights.bits_per_weight, min: 5}]}",
            "unless.any[0].min: lower is better for weights.bits_per_weight, so min alone would "
            "pass what is bad. Give max.",
        ),
    ],
)
def test_a_trade_off_is_checked_as_a_gate_is(unless: str, message: str) -> None:
    """Its limit must be looser, and what earns it must be measured."""
    assert refused(f"metric: perplexity.ratio, max: 1.02, unless: {unless}") == message


@pytest.mark.parametrize(
    ("waiver", "message"),
    [
        (
            "gate: kll, reason: known, expires: 2026-01-01",
            "waivers[0].gate: no gate has the id 'kll'. Did you mean 'kl'?",
        ),
        (
            "gate: kl, match: {layer: a}, reason: known, expires: 2026-01-01",
            "waivers[0].match.layer: kl.mean is not narrowed by 'layer'. Its scope keys: corpus, "
            "slice, task.",
        ),
        (
            "gate: kl, max: 0.5, reason: known, expires: 2026-01-01",
            "waivers[0].max: must be looser than the gate's own max of 1 (got 0.5)",
        ),
        (
            "gate: kl, min: 0.5, reason: known, expires: 2026-01-01",
            "waivers[0].min: the gate 'kl' has no min that this could loosen",
        ),
        (
            "gate: kl, max: 200%, reason: known, expires: 2026-01-01",
            "waivers[0].max: must be a number in nats/token (got '200%'). A percentage of "
            "nats/token has no meaning.",
        ),
    ],
)
def test_a_waiver_is_held_against_its_gate(waiver: str, message: str) -> None:
    """One that waives nothing there is would be trusted in vain."""
    with pytest.raises(InputError) as error:
        policy(f"gates:\n  - {{id: kl, metric: kl.mean, max: 1}}\nwaivers:\n  - {{{waiver}}}\n")
    assert str(error.value) == f"gates/p.yaml:4: {message}"


def test_a_layer_glob_is_held_against_the_modules_before_the_pass() -> None:
    """Their names are known once both models are loaded."""
    names = ["model.layers.0", "model.layers.0.mlp.up_proj"]
    rule = "metric: layer.error.total, scope: {layer: GLOB}, max: 0.1"
    check_layers(gate(rule.replace("GLOB", "'model.layers.*'")), names)
    check_layers(gate("metric: kl.mean, max: 1"), names)
    with pytest.raises(InputError) as error:
        check_layers(gate(rule.replace("GLOB", "'modle.layers.*'")), names)
    assert str(error.value).startswith(
        "gates/p.yaml:2: gates[0].scope.layer: layer=modle.layers.* matches no module that is "
        "probed. Did you mean 'model.layers.0'"
    )


def test_an_attribute_in_a_scope_is_told_how_to_become_a_slice() -> None:
    """The remedy can be pasted."""
    with pytest.raises(InputError) as error:
        gate("metric: nll.shift, scope: {language: de}, max: 1")
    assert str(error.value).endswith(
        "nll.shift is not narrowed by 'language'. Its scope keys: corpus, slice. If it is an "
        "attribute of documents, split the suite by it (slices: [{by: language}]) and write scope: "
        "{slice: language=de}."
    )
