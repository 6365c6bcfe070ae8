"""A mean against a stored one, document by document."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from evalharness.metrics import REGISTRY
from evalharness.metrics.paired import Difference, Outcomes, compared
from evalharness.stats import cluster_skew_t, sequence_of, tango

CONFIDENCE = 0.9
KL, SHIFT = REGISTRY["kl.mean"], REGISTRY["nll.shift"]


def of(sums: Any, counts: Any = None, keys: Any = None) -> Outcomes:
    sums = np.asarray(sums, float)
    counts = np.ones(sums.size) if counts is None else np.asarray(counts, float)
    keys = np.arange(1, sums.size + 1) if keys is None else np.asarray(keys)
    return Outcomes(keys.astype(np.uint64), sums, counts)


def difference(metric: str, now: Outcomes, stored: Outcomes, slope: float = 1.0) -> Difference:
    found = compared(REGISTRY[metric], now, stored, slope, CONFIDENCE)
    assert found is not None
    return found


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    """SciPy's, on documents of one row, where there is little skewness to correct."""
    rng = np.random.default_rng(0)
    hard = rng.normal(1, 1, 2000)
    now, stored = hard + rng.normal(0.1, 0.2, 2000), hard + rng.normal(0, 0.2, 2000)
    found = difference("nll.shift", of(now), of(stored)).interval
    low, high = scipy_stats.ttest_rel(now, stored).confidence_interval(CONFIDENCE)
    assert found.value == pytest.approx(now.mean() - stored.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_a_share_of_the_stored_value_is_judged_as_fieller_judges_a_ratio() -> None:
    """The slope at which the interval ends at 0 is the end of Fieller's interval."""
    rng = np.random.default_rng(1)
    hard = rng.gamma(4, 1, 2000)
    x, y = hard * rng.gamma(50, 1.1 / 50, 2000), hard * rng.gamma(50, 1 / 50, 2000)
    t2 = scipy_stats.t.ppf(0.95, 1999) ** 2
    (vx, vxy), (_, vy) = np.cov(x, y) / 2000
    a, b, c = y.mean() ** 2 - t2 * vy, x.mean() * y.mean() - t2 * vxy, x.mean() ** 2 - t2 * vx
    end = (b + math.sqrt(b * b - a * c)) / a
    width = end - x.mean() / y.mean()
    for slope, inside in ((end + 0.15 * width, True), (end - 0.15 * width, False)):
        found = difference("kl.mean", of(x), of(y), slope).interval
        assert (found.high <= 0) is inside


def test_a_perplexity_is_compared_as_a_perplexity() -> None:
    """By the delta method on both exponentials, here of documents of many lengths."""
    rng = np.random.default_rng(2)
    n = rng.integers(50, 400, 800)
    loss = rng.normal(3, 0.3, 800)
    now, stored = n * (loss + rng.normal(0.01, 0.02, 800)), n * (loss + rng.normal(0, 0.02, 800))
    found = difference("perplexity.candidate", of(now, n), of(stored, n))
    means = now.sum() / n.sum(), stored.sum() / n.sum()
    assert (found.value, found.stored) == pytest.approx(tuple(map(math.exp, means)))
    assert found.interval.value == pytest.approx(math.exp(means[0]) - math.exp(means[1]))
    draws = [
        math.exp(now[i].sum() / n[i].sum()) - math.exp(stored[i].sum() / n[i].sum())
        for i in rng.integers(0, 800, (500, 800))
    ]
    low, high = np.quantile(draws, [0.05, 0.95])
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (low, high), abs=0.15 * (high - low)
    )


def test_items_that_are_right_or_wrong_are_tangos() -> None:
    """Those that one candidate gets right and the other wrong, whatever the reference does."""
    now, stored = np.array([1, 0, -1, 0, 1] * 20), np.array([0, 0, -1, 1, 0] * 20)
    found = difference("task.score.shift", of(now), of(stored)).interval
    assert found == tango(40, 20, 100, CONFIDENCE)


@pytest.mark.parametrize("metric", ["task.score.shift", "task.flips", "logit.exceed_rate"])
def test_items_without_a_change_do_not_show_that_none_will(metric: str) -> None:
    """Neither right-or-wrong ones nor those of a passage."""
    alone = np.zeros(30)
    found = difference(metric, of(alone), of(alone)).interval
    assert found.low < -0.03 < 0.03 < found.high
    if metric != "logit.exceed_rate":
        passages = of(np.full(30, 0.5), np.full(30, 5))
        found = difference(metric, passages, passages).interval
        assert found.low < -0.03 < 0.03 < found.high


def test_tokens_without_a_change_do_not_show_that_none_will() -> None:
    """One more document may have one."""
    same = of(np.full(30, 190), np.full(30, 200))
    found = difference("top1.agreement", same, same).interval
    assert found.low < 0 < found.high
    assert found.high < 0.002


def test_one_candidate_twice_differs_by_nothing() -> None:
    """What is measured to many digits and is the same on every document is the same."""
    rng = np.random.default_rng(3)
    n = rng.integers(50, 400, 40)
    one = of(n * rng.gamma(1, 1, 40), n)
    for metric in ("kl.mean", "perplexity.ratio"):
        found = difference(metric, one, one).interval
        assert (found.value, found.low, found.high) == (0, 0, 0)


def test_only_documents_of_both_count() -> None:
    """Whatever their order, and however bad the others are."""
    rng = np.random.default_rng(4)
    a, b = rng.gamma(2, 1, (2, 50))
    whole = difference("kl.mean", of(a), of(b))
    order = rng.permutation(60)
    more = np.concatenate([a, np.full(10, 1e6)])[order]
    now = of(more, keys=(np.arange(60) + 1)[order])
    now = Outcomes(*(x[np.argsort(now.keys)] for x in (now.keys, now.sums, now.counts)))
    found = difference("kl.mean", now, of(b))
    assert (found.shared, found.here) == (50, 60)
    assert (found.value, found.stored) == pytest.approx((whole.value, whole.stored))
    assert found.interval.high == pytest.approx(whole.interval.high)


def test_other_documents_and_other_parts_of_documents_are_not_compared() -> None:
    """None has the same key, or a slice takes other positions of them."""
    one = of(np.ones(5))
    assert compared(KL, one, of(np.ones(5), keys=np.arange(10, 15)), 1.0, CONFIDENCE) is None
    cut = Outcomes(one.keys, one.sums, one.counts, "0:32")
    assert compared(KL, one, cut, 1.0, CONFIDENCE) is None


def test_a_run_that_could_stop_early_has_the_interval_of_a_sequence() -> None:
    """Which is wider, and of the differences as well."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 1, (2, 60))

    widened = partial(sequence_of, tuned_for=30)
    found = compared(SHIFT, of(a), of(b), 1.0, CONFIDENCE, widened)
    assert found is not None
    assert found.interval == widened(cluster_skew_t, a - b, np.ones(60), CONFIDENCE)
    once = compared(SHIFT, of(a), of(b), 1.0, CONFIDENCE)
    assert once is not None
    assert found.interval.high > once.interval.high


@pytest.mark.parametrize(("documents", "worse"), [(20, 1.0), (50, 1.2)])
def test_at_its_limit_a_gate_rarely_passes_or_fails(documents: int, worse: float) -> None:
    """5% of the time at most. A good one passes, which two separate errors would not show."""
    rng = np.random.default_rng(6)
    times, verdicts = 400, []
    for _ in range(times):
        n = rng.integers(50, 400, documents)
        hard = np.exp(rng.normal(0, 0.5, documents) - 0.125)
        a, b = np.exp(rng.normal(0, 0.2, (2, documents)) - 0.02)
        now, stored = of(n * worse * hard * a, n), of(n * hard * b, n)
        better = of(0.85 * now.sums, n)
        limit, good = (difference("kl.mean", x, stored, worse).interval for x in (now, better))
        apart = [cluster_skew_t(x, n, CONFIDENCE) for x in (better.sums, worse * stored.sums)]
        up = math.hypot(apart[0].high - apart[0].value, apart[1].value - apart[1].low)
        unpaired = apart[0].value - apart[1].value + up
        verdicts.append((limit.high < 0, limit.low > 0, good.high < 0, unpaired < 0))
    passed, failed, shown, shown_apart = np.mean(verdicts, axis=0)
    most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / times)
    assert passed <= most
    assert failed <= most
    assert shown > 0.35
    assert shown > shown_apart + 0.3
