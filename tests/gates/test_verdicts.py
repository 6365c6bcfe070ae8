"""One gate on one estimate made by hand: its verdict, and the words that say it."""

from __future__ import annotations

import re

import pytest

from evalharness.errors import InputError
from evalharness.gates import refuse_noise
from evalharness.metrics import REGISTRY
from evalharness.spec.estimate import Estimate
from tests.gates.fakes import decided, estimate, gate, only, policy

# -- one gate on one estimate


@pytest.mark.parametrize(
    ("low", "high", "verdict", "bound"),
    [
        (1.00, 1.01, "PASS", 1.01),
        (1.00, 1.02, "PASS", 1.02),  # the limit itself is inside
        (1.02, 1.03, "INCONCLUSIVE", 1.03),
        (1.00, 1.04, "INCONCLUSIVE", 1.04),
        (1.021, 1.04, "FAIL", 1.021),
    ],
)
def test_the_whole_interval_decides_against_a_max(
    low: float, high: float, verdict: str, bound: float
) -> None:
    """PASS when all of it is inside, FAIL when all of it is outside."""
    result = only(
        "metric: perplexity.ratio, max: 1.02",
        estimate("perplexity.ratio", (low + high) / 2, low, high),
    )
    assert (result.verdict, result.bound, result.side) == (verdict, bound, "max")
    assert result.threshold == 1.02


@pytest.mark.parametrize(
    ("low", "high", "verdict", "bound"),
    [
        (0.98, 0.99, "PASS", 0.98),
        (0.97, 0.99, "INCONCLUSIVE", 0.97),
        (0.95, 0.979, "FAIL", 0.979),
    ],
)
def test_the_whole_interval_decides_against_a_min(
    low: float, high: float, verdict: str, bound: float
) -> None:
    """For a metric of which more is better, the ends change places."""
    result = only(
        "metric: top1.agreement, min: 98%", estimate("top1.agreement", (low + high) / 2, low, high)
    )
    assert (result.verdict, result.bound, result.side) == (verdict, bound, "min")


@pytest.mark.parametrize(
    ("low", "high", "verdict", "side"),
    [
        (-0.05, 0.05, "PASS", "max"),
        (-0.2, 0.05, "INCONCLUSIVE", "min"),
        (0.2, 0.3, "FAIL", "max"),
        (-0.3, -0.2, "FAIL", "min"),
    ],
)
def test_a_band_must_hold_the_whole_interval(
    low: float, high: float, verdict: str, side: str
) -> None:
    """Either end can break it, and the side that decided is told."""
    result = only(
        "metric: temperature.shift, min: -0.1, max: 0.1",
        estimate("temperature.shift", (low + high) / 2, low, high),
    )
    assert (result.verdict, result.side) == (verdict, side)


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (0.04, 0.01, 0.07, "PASS"),  # confident would not say
        (0.06, 0.03, 0.09, "INCONCLUSIVE"),
        (0.08, 0.06, 0.10, "FAIL"),
    ],
)
def test_not_worse_passes_what_is_inside_and_not_shown_to_be_outside(
    value: float, low: float, high: float, verdict: str
) -> None:
    """For ratchets, where the same candidate measured again must pass."""
    result = only(
        "metric: kl.mean, max: 0.05, decide: not-worse", estimate("kl.mean", value, low, high)
    )
    assert result.verdict == verdict


def test_point_looks_at_the_value_alone() -> None:
    """But still wants an interval: a value without one is no evidence."""
    rule = "metric: kl.mean, max: 0.05, decide: point"
    assert only(rule, estimate("kl.mean", 0.049, 0.01, 0.09)).verdict == "PASS"
    assert only(rule, estimate("kl.mean", 0.051, 0.01, 0.09)).verdict == "FAIL"
    assert only(rule, estimate("kl.mean", 0.04, reason="no spread")).verdict == "INCONCLUSIVE"


def test_what_is_counted_is_decided_on_its_value() -> None:
    """Bits per weight have no interval and owe none; no correction touches them."""
    rule = "metric: weights.bits_per_weight, max: 4.5"
    assert only(rule, estimate("weights.bits_per_weight", 4.5, clusters=0)).verdict == "PASS"
    result = only(rule, estimate("weights.bits_per_weight", 5.0, clusters=0))
    assert result.verdict == "FAIL"
    assert result.reason == "weights.bits_per_weight is 5; outside the limit: at most 4.5."


def test_a_model_against_itself_passes_every_gate() -> None:
    """Zero shift with zero spread is the whole truth, not a missing interval."""
    decision = decided(
        policy(
            """
            gates:
              - {metric: perplexity.ratio, max: 1.0}
              - {metric: kl.mean, max: 0}
              - {metric: top1.agreement, min: 100%}
              - {metric: task.score.shift, min: 0pp}
            """
        ),
        estimate("perplexity.ratio", 1.0, 1.0, 1.0),
        estimate("kl.mean", 0.0, 0.0, 0.0),
        estimate("top1.agreement", 1.0, 1.0, 1.0),
        estimate("task.score.shift", 0.0, 0.0, 0.0, scope={"task": "a", "metric": "acc"}),
    )
    assert [g.verdict for g in decision.gates] == ["PASS"] * 4
    assert (decision.verdict, decision.exit_code) == ("PASS", 0)
    assert decision.headline == "4 of 4 gates pass."


# -- what cannot be trusted is never a PASS


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (
            estimate("kl.mean", None, reason="3 of 90 positions have NaN"),
            "it was not computed (3 of",
        ),
        (
            estimate("kl.mean", 0.01, reason="only one document", clusters=1),
            "it rests on 1 of the 20 documents or items it takes, kl.mean's own minimum (only",
        ),
        (estimate("kl.mean", 0.01, 0.01, 0.01, clusters=1), "it rests on 1 of the 20 docum"),
        (estimate("kl.mean", 0.0, 0.0, 0.0, clusters=0), "it rests on 0 of the 20 docum"),
        (estimate("kl.mean", 0.01, reason="too few carry it"), "it has no interval (too few carry"),
    ],
)
@pytest.mark.parametrize("decide_by", ["confident", "not-worse", "point"])
def test_no_value_no_interval_or_one_document_is_inconclusive(
    one: Estimate, why: str, decide_by: str
) -> None:
    """However good the number looks."""
    result = only(f"metric: kl.mean, max: 1, decide: {decide_by}", one)
    assert result.verdict == "INCONCLUSIVE"
    assert why in result.reason


@pytest.mark.parametrize("field", ["value", "low", "high"])
def test_a_nan_that_slips_through_is_inconclusive(field: str) -> None:
    """`Estimate` refuses NaN; one built past it must not pass either."""
    good = estimate("kl.mean", 0.01, 0.01, 0.01)
    bad = good.model_copy(update={field: float("nan")})
    assert only("metric: kl.mean, max: 1", bad).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("rule", "clusters", "verdict"),
    [
        ("metric: kl.mean, max: 0.05", 19, "INCONCLUSIVE"),
        ("metric: kl.mean, max: 0.05", 20, "PASS"),
        ("metric: kl.mean, max: 0.05, min_n: 5", 5, "PASS"),
        ("metric: kl.mean, max: 0.05, min_n: 21", 20, "INCONCLUSIVE"),
        ("metric: task.score.shift, max: 0.05, min: -1", 9, "INCONCLUSIVE"),
        ("metric: task.score.shift, max: 0.05, min: -1", 10, "PASS"),
        ('metric: kl.exceed_rate, scope: {bound: "0.2"}, max: 0.05', 2, "PASS"),
    ],
)
def test_a_metric_has_its_own_least_number_unless_the_policy_has(
    rule: str, clusters: int, verdict: str
) -> None:
    """And the result says which number it was."""
    metric = rule.split(",")[0].removeprefix("metric: ")
    scope = {"bound": "0.2"} if "bound" in rule else {}
    one = estimate(metric, 0.01, 0.005, 0.02, clusters=clusters, scope=scope)
    result = only(rule, one)
    given = re.search(r"min_n: (\d+)", rule)
    least = int(given[1]) if given else REGISTRY[metric].min_n
    assert (result.verdict, result.min_n) == (verdict, least)
    if verdict == "INCONCLUSIVE":
        whose = "the policy's min_n" if given else f"{metric}'s own minimum"
        assert f"it rests on {clusters} of the {least} documents or items it takes" in result.reason
        assert whose in result.reason


def test_what_earns_a_looser_limit_has_its_own_least_number_too() -> None:
    """A trade-off is not earned on two documents."""
    shift = estimate("nll.shift", 0.03, 0.02, 0.04, confidence=0.9)
    rule = "metric: nll.shift, max: 0.01, unless: {max: 0.1, any: [{metric: kl.mean, max: 0.5}]}"
    found = [
        only(rule, shift, estimate("kl.mean", 0.1, 0.1, 0.1, clusters=n)).verdict for n in (2, 20)
    ]
    assert found == ["INCONCLUSIVE", "PASS"]


def test_what_is_counted_has_no_least_number() -> None:
    """Bytes are not sampled."""
    one = estimate("memory.weights.ratio", 0.5, 0.5, 0.5, clusters=1)
    result = only("metric: memory.weights.ratio, max: 1", one)
    assert (result.verdict, result.min_n) == ("PASS", None)


def test_fewer_documents_than_min_n_are_inconclusive_either_way() -> None:
    """And the missing number is told."""
    rule = "metric: kl.mean, max: 0.05, min_n: 100"
    for low, high in ((0.01, 0.02), (0.1, 0.2)):
        result = only(rule, estimate("kl.mean", (low + high) / 2, low, high))
        assert (result.verdict, result.further_documents) == ("INCONCLUSIVE", 36)


@pytest.mark.parametrize(
    ("setting", "verdict", "code"), [("fail", "FAIL", 1), ("inconclusive", "INCONCLUSIVE", 3)]
)
def test_a_metric_that_was_not_measured(setting: str, verdict: str, code: int) -> None:
    """Fails by default, and can be INCONCLUSIVE, and never anything better."""
    decision = decided(gate(f"metric: kl.mean, max: 1, on_missing: {setting}"))
    assert (decision.verdict, decision.exit_code) == (verdict, code)
    assert (decision.gates[0].observed, decision.gates[0].threshold) == (None, 1.0)
    assert decision.gates[0].reason == (
        "kl.mean was not measured in this run, and what is not measured does not pass."
    )


def test_a_scope_that_matches_nothing_is_an_input_error() -> None:
    """The scopes that there are get named."""
    with pytest.raises(InputError) as error:
        only(
            "metric: task.flips, scope: {task: arcc_*}, max: 5%",
            estimate("task.flips", 0.0, 0.0, 0.0, scope={"task": "arc_easy", "metric": "acc"}),
        )
    assert str(error.value) == (
        "gates/p.yaml:2: gates[0].scope: 'task=arcc_*' matches nothing that the run measured of "
        "task.flips. It has: task=arc_easy, metric=acc."
    )


def test_a_limit_inside_the_noise_floor_is_refused() -> None:
    """Rounding alone would break it."""
    with pytest.raises(InputError) as error:
        only(
            "metric: perplexity.ratio, max: 1.0001",
            estimate("perplexity.ratio", 1.0, 1.0, 1.0, noise_floor=1.0004),
        )
    assert str(error.value) == (
        "gates/p.yaml:2: gates[0].max: the limit 1.0001 is inside the noise floor: the reference "
        "against itself, rounded differently, may show 1.0004. Give a limit further from 1 than "
        "the noise floor, or measure that over more windows (noise_floor: {windows: N})."
    )
    passing = estimate("perplexity.ratio", 1.0, 1.0, 1.0, noise_floor=1.0004)
    assert only("metric: perplexity.ratio, max: 1.001", passing).verdict == "PASS"


def test_limits_are_held_against_the_floor_before_anything_is_measured() -> None:
    """Those that are plain numbers; one of tasks has no floor of the texts."""
    floors = {"kl.mean": 0.002, "ece.shift": 0.002}
    with pytest.raises(InputError, match=r"gates\[0\].max: the limit 0.001 is inside the noise"):
        refuse_noise(gate("metric: kl.mean, max: 0.001"), floors)
    refuse_noise(gate("metric: kl.mean, max: 0.003"), floors)
    refuse_noise(gate("metric: kl.mean, max: 1%, relative_to: baseline"), floors)
    refuse_noise(gate("metric: kl.mean, max: 0.001"), {})


# -- words and numbers


def test_a_failed_gate_says_what_was_measured_the_limit_and_the_worst_offender() -> None:
    """All that a person needs to go and look."""
    result = only(
        "metric: perplexity.ratio, max: 1.02",
        estimate("perplexity.ratio", 1.034, 1.029, 1.04, worst="document wiki/7 (+0.2 nats)"),
    )
    assert result.reason == (
        "perplexity.ratio is 1.034 [1.029, 1.04]; outside the limit: at most 1.02. "
        "Worst: document wiki/7 (+0.2 nats)."
    )
    assert (result.file, result.line) == ("gates/p.yaml", 2)


def test_numbers_keep_apart_what_differs() -> None:
    """1.02 against a limit of 1.02 would read as a contradiction."""
    result = only(
        "metric: perplexity.ratio, max: 1.02",
        estimate("perplexity.ratio", 1.020004, 1.020002, 1.020006),
    )
    assert result.reason == (
        "perplexity.ratio is 1.020004 [1.020002, 1.020006]; outside the limit: at most 1.02."
    )


def test_an_inconclusive_gate_says_how_many_documents_would_settle_it() -> None:
    """Four times in five: ((1.645 + 0.842)/1.669 · 0.02/0.01)² · 64 = 570 in all."""
    result = only(
        "metric: kl.mean, max: 0.05", estimate("kl.mean", 0.04, 0.02, 0.06, confidence=0.9)
    )
    assert result.further_documents is not None
    assert result.further_documents == pytest.approx(506, abs=6)  # t shrinks a little, too
    assert result.reason == (
        "kl.mean is 0.04 [0.02, 0.06]; limit: at most 0.05; the interval holds the limit. "
        f"About {result.further_documents} more documents or items would settle it."
    )
