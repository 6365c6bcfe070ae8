"""How many documents or items a policy needs, against the formulas by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from evalharness.errors import InputError
from evalharness.gates import Sizes, check_resolvable, needs, spreads_from
from evalharness.metrics import Spread
from evalharness.stats import cluster_skew_t
from evalharness.testing.records import estimates, synthetic
from tests.gates.fakes import FakeEstimates, estimate, gate

TASK = "metric: task.score.shift, min: -1pp"


def refused(text: str, sizes: Sizes) -> str:
    with pytest.raises(InputError) as error:
        check_resolvable(gate(text), sizes)
    return str(error.value)


def test_the_items_of_a_binary_task_are_those_of_the_formula() -> None:
    """6.19 · f / m², give or take what Tango's score adds: 5% flips, one point, 3,093 items."""
    (need,) = needs(gate(TASK))
    assert need.to_pass == pytest.approx(6.19 * 0.05 / 0.01**2, rel=0.02)
    assert need.to_decide == pytest.approx(
        scipy_stats.norm.ppf(0.95) ** 2 * 0.05 / 0.01**2, rel=0.04
    )
    assert (need.unit, need.margin, need.have) == ("items", 0.01, None)


def test_the_documents_of_a_mean_are_more_than_those_of_the_formula() -> None:
    """((z_α + z_β)·σ/(limit − δ))² knows no t and nothing of what was not drawn."""
    rule = "metric: nll.shift, max: 0.02"
    (need,) = needs(gate(rule), {"nll.shift": (Spread(0.05, 0.01),)})
    z = scipy_stats.norm.ppf(0.95) + scipy_stats.norm.ppf(0.8)
    assert need.to_pass is not None
    assert 1.05 < need.to_pass / (z * 0.05 / 0.01) ** 2 < 1.25


def test_of_several_scopes_the_one_that_takes_most_counts() -> None:
    """A gate passes where all of them do."""
    one, other = Spread(0.05, 0.01), Spread(0.05, 0.015)
    rule = "metric: nll.shift, max: 0.02"
    alone = [needs(gate(rule), {"nll.shift": (s,)})[0].to_pass for s in (one, other)]
    (both,) = needs(gate(rule), {"nll.shift": (one, other)})
    assert both.to_pass == max(n or 0 for n in alone)
    (never,) = needs(gate(rule), {"nll.shift": (one, Spread(0.05, 0.03))})
    assert never.to_pass is None


def test_the_least_number_is_the_least() -> None:
    """One document fewer, and even a shift of 0 has an interval beyond the limit."""
    (need,) = needs(gate("metric: nll.shift, max: 0.02"), {"nll.shift": (Spread(0.1),)})

    def high(documents: int) -> float:
        normal = scipy_stats.norm.ppf((np.arange(documents) + 0.5) / documents)
        sample = 0.1 * normal / normal.std(ddof=1)
        found = cluster_skew_t(sample, np.ones(documents), 0.90)
        assert found.high is not None
        return found.high

    assert high(need.to_decide) <= 0.02 < high(need.to_decide - 1)


def test_ways_to_pass_that_share_the_error_take_more() -> None:
    """Each is held to 97.5% where there are two."""
    unless = "unless: {max: 0.02, any: [{metric: kl.mean, max: 0.5}]}"
    (alone,) = needs(gate("metric: nll.shift, max: 0.02"))
    (shared,) = needs(gate(f"metric: nll.shift, max: 0.015, {unless}"))
    (surer,) = needs(replace(gate("metric: nll.shift, max: 0.02"), confidence=0.975))
    assert shared.to_pass == surer.to_pass
    assert (surer.to_pass or 0) >= (alone.to_pass or 0)


def test_flips_need_what_clopper_pearson_says() -> None:
    """With no flip in n items the upper end is 1 − 0.05^(1/n)."""
    (need,) = needs(gate("metric: task.flips, max: 3%"))
    assert 1 - 0.05 ** (1 / need.to_decide) <= 0.03 < 1 - 0.05 ** (1 / (need.to_decide - 1))
    assert need.to_pass is None  # 5% of items are expected to flip, which is beyond the limit


def test_a_suite_too_small_to_ever_decide_is_refused() -> None:
    """Before a model is loaded, with the number that it takes."""
    assert refused(TASK, Sizes({}, {"arc": 100, "mmlu": 5000})) == (
        "gates/p.yaml:2: gates[0].min: 100 items can never decide a min of -1pp at 0.95 "
        "confidence: even for a perfect candidate it takes 1,400 (planning spread 0.224, default). "
        "Measure at least 1,400 items, or give a limit at least 0.044 from the best possible "
        "value. Where an earlier run of such a pair varied less, `--plan-from RUN` takes its "
        "spread."
    )
    check_resolvable(gate(TASK), Sizes({}, {"arc": 1400}))
    check_resolvable(gate(TASK), Sizes({}, {"arc": None}))  # all there are


def test_the_smallest_scope_counts() -> None:
    """Text metrics are over all corpora unless a scope says otherwise."""
    sizes = Sizes({"a": 20, "b": 500}, {})
    check_resolvable(gate("metric: nll.shift, max: 0.004"), sizes)
    message = refused("metric: nll.shift, scope: {corpus: '*'}, max: 0.004", sizes)
    assert "20 documents can never decide a max of 0.004" in message


def test_a_suite_below_min_n_is_refused() -> None:
    """For metrics without a planning bound, too."""
    assert refused("metric: kl.mean, max: 1, min_n: 30", Sizes({"a": 10}, {})) == (
        "gates/p.yaml:2: gates[0].min_n: needs 30 documents, the policy's min_n, and the suite "
        "has 10. Raise the suite's number of documents, or lower min_n."
    )


def test_a_suite_below_the_metrics_own_minimum_is_refused() -> None:
    """Unless the policy gives another, or the gate decides nothing."""
    few = Sizes({"a": 10}, {})
    assert refused("metric: kl.mean, max: 1", few) == (
        "gates/p.yaml:2: gates[0]: needs 20 documents, kl.mean's own minimum, and the suite has "
        "10. Raise the suite's number of documents, or give a lower min_n."
    )
    check_resolvable(gate("metric: kl.mean, max: 1, min_n: 10"), few)
    check_resolvable(gate("metric: kl.mean, max: 1, severity: info"), few)


def test_a_task_that_the_suite_does_not_have_is_refused() -> None:
    """Now, and not after the models ran."""
    assert refused("metric: task.flips, scope: {task: arcc*}, max: 5%", Sizes({}, {"mmlu": 9})) == (
        "gates/p.yaml:2: gates[0].scope.task: task=arcc* matches nothing that the suite measures. "
        "It has: mmlu."
    )


@pytest.mark.parametrize(
    "rule",
    [
        "metric: kl.mean, max: 1.0e-9",  # its spread shrinks with it
        "metric: weights.bits_per_weight, max: 4",
        "metric: layer.error.total, max: 0.01",
        "metric: nll.shift, max: 1.0e-9, decide: point",
        "metric: nll.shift, max: 1.0e-9, severity: info",
        "metric: nll.shift, max: -0.1",  # asks for an improvement
        "metric: nll.shift, max: 1.0e-9, relative_to: baseline",
        "metric: nll.shift, scope: {slice: code}, max: 1.0e-9",  # nobody knows how many those are
    ],
)
def test_what_cannot_be_planned_is_not_refused(rule: str) -> None:
    """Only what could never be decided is."""
    check_resolvable(gate(rule), Sizes({"a": 25}, {"t": 25}, {"code": None}))


def test_a_slice_is_held_to_its_own_documents() -> None:
    """Of several that match, to the smallest; one that matches nothing is named."""
    sizes = Sizes({"a": 500}, {}, {"language=de": 20, "language=en": 400, "code": 300})
    rule = "metric: nll.shift, scope: {slice: 'SLICE'}, max: 0.01"
    check_resolvable(gate(rule.replace("SLICE", "language=en")), sizes)
    with pytest.raises(InputError, match=r"20 documents can never decide a max of 0.01"):
        check_resolvable(gate(rule.replace("SLICE", "language=*")), sizes)
    with pytest.raises(InputError, match=r"slice=german matches nothing.* It has: language=de"):
        check_resolvable(gate(rule.replace("SLICE", "german")), sizes)
    with pytest.raises(InputError, match="The suite names no slice"):
        check_resolvable(gate(rule.replace("SLICE", "x")), Sizes({"a": 9}, {}))


def test_a_trade_off_is_planned_on_its_looser_limit() -> None:
    """The best case decides what could ever be."""
    text = "unless: {max: 0.5, any: [{metric: weights.bits_per_weight, max: 4}]}"
    check_resolvable(gate(f"metric: nll.shift, max: 0.0001, {text}"), Sizes({"a": 25}, {}))


def test_an_earlier_run_gives_the_spread() -> None:
    """Half the interval over t, times √G, in the metric's own unit."""
    half = float(scipy_stats.t.ppf(0.95, 63)) * 0.05 / 8
    earlier = FakeEstimates(estimate("nll.shift", 0.01, 0.01 - half, 0.01 + half))
    found = spreads_from(gate("metric: nll.shift, max: 0.02"), earlier, "runs/a")
    assert found["nll.shift"][0].sd == pytest.approx(0.05)
    assert (found["nll.shift"][0].value, found["nll.shift"][0].source) == (0.01, "runs/a")


ROOM = 1.02


def test_an_earlier_run_plans_what_has_no_default() -> None:
    """Means by its documents, quantiles by their interval, which shrinks with more of them."""
    run = estimates(synthetic(64, damage=0.3))
    value = {m: run.estimate(m, {}, 0.9).value or 0.0 for m in ("kl.mean", "kl.p99")}
    rules = {m: gate(f"metric: {m}, max: {ROOM * v}") for m, v in value.items()}
    rules["top1.agreement"] = gate("metric: top1.agreement, min: 5%")
    found = {}
    for metric, rule in rules.items():
        spreads = spreads_from(rule, run, "runs/a")
        assert (spreads[metric][0].parts is None) == (metric == "kl.p99")
        (need,) = needs(rule, spreads)
        found[metric] = (need.to_decide, need.to_pass)
    assert found["top1.agreement"] == (20, 20)
    for metric in value:
        least, enough = found[metric]
        assert least == 20
        assert enough is not None
        assert enough > 20
    one = run.estimate("kl.p99", {}, 0.9)
    assert one.high is not None
    # (t + z)·σ/√G comes down to the gap.
    t = {n: float(scipy_stats.t.ppf(0.95, n - 1)) for n in (64, found["kl.p99"][1] or 2)}
    size = found["kl.p99"][1] or 2
    half = (one.high - value["kl.p99"]) / t[64] * math.sqrt(64 / size)
    assert half * (t[size] + scipy_stats.norm.ppf(0.8)) == pytest.approx(
        (ROOM - 1) * value["kl.p99"], rel=0.03
    )


LEAVES = {f"m{k}": 100 + k for k in range(57)}
BY_SIZE = {name: n / sum(LEAVES.values()) for name, n in LEAVES.items()}
SUITE = Sizes(
    {},
    {**LEAVES, "arc": 1500},
    groups={
        "stem": {"m0": 0.5, "m1": 0.5},
        "mmlu": BY_SIZE,
        "all": {name: w / 2 for name, w in BY_SIZE.items()} | {"arc": 0.5},
    },
)


def have(text: str, sizes: Sizes = SUITE) -> int | None:
    """Items that the one need of a gate has."""
    (need,) = needs(gate(text), sizes=sizes)
    return need.have


def test_a_group_has_the_items_of_its_tasks() -> None:
    """In the weights of their sizes all of them; fewer, by Kish, in other weights."""
    assert have("metric: task.score.shift, scope: {group: mmlu}, min: -1pp") == 7296
    plain = dict.fromkeys(LEAVES, 1 / 57)
    found = have(
        "metric: task.score.shift, scope: {group: mmlu}, min: -1pp",
        Sizes({}, LEAVES, groups={"mmlu": plain}),
    )
    assert found == int(57**2 / sum(1 / n for n in LEAVES.values())) < 7296
    assert have("metric: task.score.shift, scope: {group: '*m*'}, min: -1pp") == 200
    assert have("metric: task.score.shift, scope: {group: all}, min: -1pp") == int(
        4 / (1 / 7296 + 1 / 1500)
    )


def test_a_gate_without_a_task_is_held_to_the_least_that_the_suite_names() -> None:
    """Which is no leaf of a group; one that names tasks is held to the least of those."""
    assert have("metric: task.score.shift, min: -1pp") == 1500
    assert have("metric: task.score.shift, scope: {metric: acc}, min: -1pp") == 1500
    check_resolvable(gate("metric: task.score.shift, min: -1pp"), SUITE)
    message = refused("metric: task.score.shift, scope: {task: m*}, min: -1pp", SUITE)
    assert "100 items can never decide a min of -1pp" in message
    unknown = refused("metric: task.score.shift, scope: {group: bbh}, min: -1pp", SUITE)
    assert "group=bbh matches nothing that the suite measures" in unknown
    assert unknown.endswith("It has: stem, mmlu, all.")


def test_a_mean_over_tasks_has_all_of_their_items() -> None:
    """Their errors are added in squares; the least number that min_n asks is of them all."""
    rule = "metric: task.score.shift, scope: {task: m*}, min: -1pp, aggregate: mean"
    assert have(rule) == int(57**2 / sum(1 / n for n in LEAVES.values()))
    check_resolvable(gate(f"{rule}, min_n: 7296"), SUITE)
    few = refused(f"{rule}, min_n: 7297", SUITE)
    assert "needs 7,297 items, the policy's min_n, and the suite has 7,296" in few


def test_no_flip_in_a_group_shows_less_than_none_in_as_many_items() -> None:
    """Every task's own end stands for what it did not show."""
    found = have("metric: task.flips, scope: {group: mmlu}, max: 3%")
    assert found is not None
    ends = [BY_SIZE[name] * (1 - 0.05 ** (1 / n)) for name, n in LEAVES.items()]
    assert 1 - 0.05 ** (1 / found) == pytest.approx(math.hypot(*ends), rel=2e-3)
    assert found < 7296


def test_a_gate_on_layers_needs_as_many_documents_as_are_probed() -> None:
    """And not as many as the suite has, which no probe looks at."""
    rule = 'metric: layer.error.total, scope: {layer: "**"}, max: 0.1'
    sizes = Sizes({"texts": 32}, {}, probed=9)
    said = refused(rule, sizes)
    assert "needs 10 documents, layer.error.total's own minimum, and the suite probes 9" in said
    assert "Raise layers: {windows: N}" in said
    check_resolvable(gate(rule), replace(sizes, probed=10))
    check_resolvable(gate(f"{rule}, min_n: 9"), sizes)
