"""Verdicts on estimates made by hand: each gate, the policy, the exit code, the words."""

from __future__ import annotations

import pytest
from scipy import stats as scipy_stats

from evalharness.errors import InputError
from evalharness.gates import Decision, decide, find_anomalies, refuse_noise
from evalharness.spec.estimate import Estimate
from evalharness.spec.policy import Policy
from evalharness.spec.result import Anomaly, GateResult
from tests.gates.fakes import FakeEstimates, estimate, gate, policy


def decided(policy: Policy, *estimates: Estimate, **more: object) -> Decision:
    return decide(policy, FakeEstimates(*estimates), **more)  # type: ignore[arg-type]


def only(text: str, *estimates: Estimate) -> GateResult:
    """The one result of a policy of one gate."""
    (result,) = decided(gate(text), *estimates).gates
    return result


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
            "it rests on 1 of the 2 documents or items it takes (only",
        ),
        (estimate("kl.mean", 0.01, 0.01, 0.01, clusters=1), "it rests on 1 of the 2 docum"),
        (estimate("kl.mean", 0.0, 0.0, 0.0, clusters=0), "it rests on 0 of the 2 docum"),
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
        "against itself, rounded differently, already shows 1.0004. Give a limit further from 1 "
        "than the noise floor."
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
    """At the present estimate: the half-width shrinks as 1/√G, (0.02/0.01)² · 64 = 256 in all."""
    result = only(
        "metric: kl.mean, max: 0.05", estimate("kl.mean", 0.04, 0.02, 0.06, confidence=0.9)
    )
    assert result.further_documents is not None
    assert result.further_documents == pytest.approx(192, abs=6)  # t shrinks a little, too
    assert result.reason == (
        "kl.mean is 0.04 [0.02, 0.06]; limit: at most 0.05; the interval holds the limit. "
        f"About {result.further_documents} more documents or items would settle it."
    )


# -- several matches


def _tasks(*shifts: tuple[str, float, float]) -> list[Estimate]:
    return [
        estimate(
            "task.score.shift", (low + high) / 2, low, high, scope={"task": task, "metric": "acc"}
        )
        for task, low, high in shifts
    ]


def test_without_each_all_matches_must_pass_and_the_worst_is_shown() -> None:
    """One bad task cannot hide behind the others."""
    result = only(
        "id: drop, metric: task.score.shift, scope: {task: arc_*}, min: -1pp",
        *_tasks(
            ("arc_a", 0, 0.01), ("arc_b", -0.2, -0.1), ("arc_c", -0.02, 0), ("mmlu", -0.5, -0.4)
        ),
    )
    assert (result.id, result.verdict, result.scope) == (
        "drop",
        "FAIL",
        {"task": "arc_b", "metric": "acc"},
    )
    assert result.reason.endswith("The worst of 3: 1 FAIL, 1 INCONCLUSIVE, 1 PASS.")


def test_each_gives_one_result_a_match() -> None:
    """With the scope in its id, and the rule's id beside it."""
    decision = decided(
        gate("id: drop, metric: task.score.shift, min: -1pp, each: true"),
        *_tasks(("a", 0, 0.01), ("b", -0.2, -0.1)),
    )
    assert [(g.id, g.rule, g.verdict) for g in decision.gates] == [
        ("drop[task=a,metric=acc]", "drop", "PASS"),
        ("drop[task=b,metric=acc]", "drop", "FAIL"),
    ]
    assert decision.headline == "1 of 2 gates fails: drop[task=b,metric=acc]."


def test_mean_is_never_narrower_than_its_parts_allow() -> None:
    """Errors of scopes that share documents may agree fully: half-widths are averaged."""
    result = only(
        "metric: task.score.shift, scope: {task: '*'}, min: -3pp, aggregate: mean",
        *_tasks(("a", -0.04, 0.0), ("b", -0.02, 0.02)),
    )
    assert (result.observed, result.low, result.high) == pytest.approx((-0.01, -0.03, 0.01))
    assert (result.verdict, result.worst) == ("PASS", "task=a, metric=acc at -0.02")


def test_a_mean_over_a_missing_part_is_inconclusive() -> None:
    """Never average a NaN, never leave it out."""
    scope = {"task": "b", "metric": "acc"}
    result = only(
        "metric: task.score.shift, min: -3pp, aggregate: mean",
        *_tasks(("a", 0.0, 0.0)),
        estimate("task.score.shift", None, reason="NaN", scope=scope),
    )
    assert result.verdict == "INCONCLUSIVE"
    assert "it was not computed (task=b, metric=acc: NaN)" in result.reason


def test_the_broadest_scope_that_exists_is_meant() -> None:
    """Over everything, not once more for each corpus."""
    estimates = (
        estimate("kl.mean", 0.01, 0.01, 0.01),
        estimate("kl.mean", 9.0, 9.0, 9.0, scope={"corpus": "code"}),
    )
    assert only("metric: kl.mean, max: 1", *estimates).verdict == "PASS"
    assert only("metric: kl.mean, scope: {corpus: code}, max: 1", *estimates).verdict == "FAIL"


# -- Holm


def _border(metric: str, low: float) -> Estimate:
    """A shift whose lower end is just above a limit of 0, so that p is just below 0.05."""
    return estimate(metric, low + 0.1, low, low + 0.2, confidence=0.9)


def test_one_failure_by_a_hair_among_many_tests_is_withdrawn() -> None:
    """Eight gates at their limits would FAIL somewhere a third of the time."""
    text = "gates:\n  - {metric: nll.shift, max: 0}\n"
    alone = decided(policy(text), _border("nll.shift", 0.001))
    assert (alone.gates[0].verdict, alone.exit_code) == ("FAIL", 1)

    text += "  - {metric: kl.mean, max: 1}\n"
    both = decided(policy(text), _border("nll.shift", 0.001), estimate("kl.mean", 0.1, 0.05, 0.2))
    assert (both.gates[0].verdict, both.exit_code) == ("INCONCLUSIVE", 3)
    assert "2 limits are tested, and after Holm's correction it takes p at most 0.025" in (
        both.gates[0].reason
    )
    assert (both.gates[0].further_documents or 0) > 0


def test_a_clear_failure_survives_the_correction() -> None:
    """And the others are then tested against fewer."""
    text = "gates:\n  - {metric: nll.shift, max: 0}\n  - {metric: ece.shift, max: 0}\n"
    clear = estimate("nll.shift", 0.5, 0.4, 0.6, confidence=0.9)
    decision = decided(policy(text), clear, _border("ece.shift", 0.001))
    assert [g.verdict for g in decision.gates] == ["FAIL", "FAIL"]


def test_gates_that_only_warn_do_not_weaken_those_that_block() -> None:
    """They are a family of their own."""
    text = (
        "gates:\n  - {metric: nll.shift, max: 0}\n  - {metric: kl.mean, max: 1, severity: warn}\n"
    )
    decision = decided(
        policy(text), _border("nll.shift", 0.001), estimate("kl.mean", 0.1, 0.05, 0.2)
    )
    assert decision.gates[0].verdict == "FAIL"


def test_a_gate_over_many_layers_weighs_as_one_gate() -> None:
    """Two gates, whatever the second matches: the first is tested at 0.025, and not at 0.05/31."""
    text = "gates:\n  - {metric: nll.shift, max: 0}\n  - {metric: layer.error.total, max: 1}\n"
    half = 0.1
    t = float(scipy_stats.t.ppf(0.95, 63))
    shift = half * float(scipy_stats.t.ppf(1 - 0.02, 63)) / t  # p = 0.02
    layers = [
        estimate("layer.error.total", 0.1, 0.05, 0.15, scope={"layer": f"h.{i}"}) for i in range(30)
    ]
    one = estimate("nll.shift", shift, shift - half, shift + half, confidence=0.9)
    assert decided(policy(text), one, *layers).gates[0].verdict == "FAIL"


def test_verdicts_that_are_no_tests_are_not_counted() -> None:
    """A count of bytes has no p-value."""
    text = (
        "gates:\n  - {metric: nll.shift, max: 0}\n  - {metric: weights.bits_per_weight, max: 4}\n"
    )
    bits = estimate("weights.bits_per_weight", 5.0, clusters=0)
    decision = decided(policy(text), _border("nll.shift", 0.001), bits)
    assert [g.verdict for g in decision.gates] == ["FAIL", "FAIL"]


# -- relative limits and trade-offs


def _relative(shift: tuple[float, float], own: tuple[float, float, float]) -> str:
    scope = {"task": "a", "metric": "acc"}
    low, high = shift
    return only(
        "metric: task.score.shift, min: -2%, relative_to: reference",
        estimate("task.score.shift", (low + high) / 2, low, high, scope=scope),
        estimate("task.score.reference", own[1], own[0], own[2], scope=scope),
    ).verdict


def test_a_limit_relative_to_the_reference_carries_its_error() -> None:
    """2% of a score between 0.4 and 0.6 is 0.008 … 0.012: PASS needs the one, FAIL the other."""
    own = (0.4, 0.5, 0.6)
    assert _relative((-0.008, 0.0), own) == "PASS"
    assert _relative((-0.009, 0.0), own) == "INCONCLUSIVE"
    assert _relative((-0.02, -0.011), own) == "INCONCLUSIVE"
    assert _relative((-0.02, -0.0121), own) == "FAIL"


def test_a_reference_without_an_interval_gives_no_limit() -> None:
    """What is not known cannot be kept."""
    scope = {"task": "a", "metric": "acc"}
    result = only(
        "metric: task.score.shift, min: -2%, relative_to: reference",
        estimate("task.score.shift", 0.0, 0.0, 0.0, scope=scope),
        estimate("task.score.reference", 0.5, scope=scope, reason="not a mean"),
    )
    assert result.verdict == "INCONCLUSIVE"
    assert (
        "the limit is not known: task.score.reference has no interval: not a mean" in result.reason
    )


TRADE_OFF = """
    gates:
      - metric: perplexity.ratio
        max: 1.02
        unless:
          max: 1.05
          any:
            - {metric: weights.bits_per_weight, max: 4.5}
            - {metric: latency.decode.ratio, max: 0.7}
"""


@pytest.mark.parametrize(
    ("bits", "ratio", "verdict"),
    [
        (4.2, (1.03, 1.04), "PASS"),
        (4.2, (1.06, 1.07), "FAIL"),
        (8.0, (1.00, 1.01), "PASS"),
        (8.0, (1.03, 1.04), "FAIL"),
    ],
)
def test_a_looser_limit_holds_only_when_it_is_earned(
    bits: float, ratio: tuple[float, float], verdict: str
) -> None:
    """At most 2% worse, or 5% where it takes at most 4.5 bits or 0.7 of the time."""
    decision = decided(
        policy(TRADE_OFF),
        estimate("perplexity.ratio", sum(ratio) / 2, *ratio),
        estimate("weights.bits_per_weight", bits, clusters=0),
        estimate("latency.decode.ratio", 1.2, 1.1, 1.3),
    )
    assert decision.gates[0].verdict == verdict


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [((1.00, 1.01), "PASS"), ((1.03, 1.04), "INCONCLUSIVE"), ((1.06, 1.07), "FAIL")],
)
def test_between_the_two_limits_an_undecided_condition_leaves_it_undecided(
    ratio: tuple[float, float], verdict: str
) -> None:
    """Latency was not measured, so nobody knows whether it was earned."""
    decision = decided(
        policy(TRADE_OFF),
        estimate("perplexity.ratio", sum(ratio) / 2, *ratio),
        estimate("weights.bits_per_weight", 8.0, clusters=0),
    )
    assert decision.gates[0].verdict == verdict


def test_what_earned_the_looser_limit_is_said() -> None:
    """A PASS at 1.04 under a limit of 1.02 would puzzle."""
    decision = decided(
        policy(TRADE_OFF),
        estimate("perplexity.ratio", 1.035, 1.03, 1.04),
        estimate("weights.bits_per_weight", 4.2, clusters=0),
    )
    assert decision.gates[0].reason == (
        "perplexity.ratio is 1.035 [1.03, 1.04]; inside the limit: at most 1.05 (not 1.02: earned "
        "by weights.bits_per_weight of 4.2)."
    )
    assert decision.gates[0].threshold == 1.05


# -- the whole policy


@pytest.mark.parametrize(
    ("settings", "low", "verdict", "code"),
    [
        ("", 0.01, "PASS", 0),
        ("", 0.03, "INCONCLUSIVE", 3),
        ("", 0.06, "FAIL", 1),
        ("on_inconclusive: warn", 0.03, "INCONCLUSIVE", 0),
        ("severity: warn", 0.06, "INCONCLUSIVE", 0),  # nothing can block: nothing is decided
    ],
)
def test_exit_codes(settings: str, low: float, verdict: str, code: int) -> None:
    """The verdict says what is known, the code whether the policy blocks on it."""
    decision = decided(
        gate(f"metric: kl.mean, max: 0.05, {settings}"),
        estimate("kl.mean", low + 0.015, low, low + 0.03),
    )
    assert (decision.verdict, decision.exit_code) == (verdict, code)


def test_a_warning_gate_warns_and_does_not_block() -> None:
    """It is told beside a PASS."""
    text = (
        "gates:\n  - {metric: kl.mean, max: 1}\n  - {metric: nll.shift, max: 0, severity: warn}\n"
    )
    decision = decided(
        policy(text), estimate("kl.mean", 0.1, 0.1, 0.1), estimate("nll.shift", 0.3, 0.2, 0.4)
    )
    assert (decision.verdict, decision.exit_code) == ("PASS", 0)
    assert decision.headline == "1 of 2 gates passes, 1 without blocking."
    assert decision.warnings == ["nll.shift: FAIL, which does not block here"]


def test_an_anomaly_of_the_run_takes_every_pass_back() -> None:
    """But not what is counted from the weights, and not a FAIL."""
    text = """
        gates:
          - {metric: kl.mean, max: 1}
          - {metric: nll.shift, max: 0}
          - {metric: weights.bits_per_weight, max: 5}
    """
    nan = Anomaly(kind="nan", message="NaN logits in window 3 of the candidate")
    estimates = (
        estimate("kl.mean", 0.1, 0.1, 0.1),
        estimate("nll.shift", -0.1, -0.1, -0.1),
        estimate("weights.bits_per_weight", 4.0, clusters=0),
    )
    decision = decided(policy(text), *estimates, anomalies=[nan])
    assert [g.verdict for g in decision.gates] == ["ANOMALOUS", "ANOMALOUS", "PASS"]
    assert (decision.verdict, decision.exit_code) == ("ANOMALOUS", 3)
    assert decision.headline == (
        "The run cannot be trusted: NaN logits in window 3 of the candidate."
    )
    failing = (estimates[0], estimate("nll.shift", 0.5, 0.4, 0.6), estimates[2])
    assert decided(policy(text), *failing, anomalies=[nan]).exit_code == 1


def test_an_anomaly_can_be_let_through() -> None:
    """The verdict stays, the exit code does not."""
    nan = Anomaly(kind="nan", message="NaN")
    text = "defaults: {on_anomalous: warn}\ngates:\n  - {metric: kl.mean, max: 1}\n"
    decision = decided(policy(text), estimate("kl.mean", 0.1, 0.1, 0.1), anomalies=[nan])
    assert (decision.verdict, decision.exit_code) == ("ANOMALOUS", 0)


def test_an_anomaly_of_one_task_touches_that_task_only() -> None:
    """The others were measured on other items."""
    better = Anomaly(
        kind="better", message="up", metric="task.score.shift", scope={"task": "a", "metric": "acc"}
    )
    decision = decided(
        gate("metric: task.score.shift, min: -1pp, each: true"),
        *_tasks(("a", 0.1, 0.2), ("b", 0, 0)),
        anomalies=[better],
    )
    assert [g.verdict for g in decision.gates] == ["ANOMALOUS", "PASS"]


# -- too good to be true


def test_no_divergence_of_a_compressed_candidate_is_anomalous() -> None:
    """Was the reference loaded twice?"""
    same = FakeEstimates(estimate("kl.mean", 0.0, 0.0, 0.0))
    assert [a.kind for a in find_anomalies(same, compressed=True)] == ["no_divergence"]
    assert find_anomalies(same, compressed=False) == []
    assert find_anomalies(FakeEstimates(estimate("kl.mean", 1e-9, 0, 1e-8)), compressed=True) == []


def test_no_divergence_is_seen_in_a_suite_of_tasks_alone() -> None:
    """All of them must be exactly 0; where there are texts, those decide."""
    zero = [estimate("kl.mean", 0.0, 0.0, 0.0, scope={"task": t}) for t in "ab"]
    other = estimate("kl.mean", 0.1, 0.0, 0.2, scope={"task": "c"})
    (found,) = find_anomalies(FakeEstimates(*zero), compressed=True)
    assert found.kind == "no_divergence"
    assert f"over {zero[0].n + zero[1].n} tokens" in found.message
    assert find_anomalies(FakeEstimates(*zero, other), compressed=True) == []
    texts = estimate("kl.mean", 0.1, 0.0, 0.2)
    assert find_anomalies(FakeEstimates(texts, *zero), compressed=True) == []


def test_a_task_that_gains_beyond_noise_is_anomalous() -> None:
    """An interval that holds 0 is noise; one above it is not."""
    better, *rest = find_anomalies(
        FakeEstimates(*_tasks(("a", 0.05, 0.15), ("b", -0.01, 0.3))), compressed=True
    )
    assert (better.metric, better.scope, rest) == (
        "task.score.shift",
        {"task": "a", "metric": "acc"},
        [],
    )
    assert better.message == (
        "the score of task=a, metric=acc is up by 0.1, at least 0.05 beyond noise: compression "
        "does not add ability"
    )
