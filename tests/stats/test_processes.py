"""Ratios of times over processes: by hand, against scipy, and on a machine that drifts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from evalharness.probes.decoding import turns
from evalharness.stats import cluster_skew_t, process_ratio_t
from evalharness.stats.interval import Floats

TIMES = 4000
ERROR = math.sqrt(0.05 * 0.95 / TIMES)


def test_the_interval_is_students_on_logarithms() -> None:
    """Against scipy's own, of five processes."""
    cand, ref = np.array([1.1, 1.2, 0.9, 1.3, 1.05]), np.array([1.0, 1.05, 1.0, 1.1, 1.0])
    found = process_ratio_t(cand, ref, 0.9)
    by_scipy = ttest_1samp(np.log(cand / ref), 0).confidence_interval(0.9)
    assert found.value == pytest.approx(math.exp(np.log(cand / ref).mean()))
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(by_scipy)))
    assert (found.n, found.clusters, found.method) == (5, 5, "t over processes (log)")


def test_the_sides_are_alike() -> None:
    """Exchanging them gives the reciprocal, ends and all."""
    cand, ref = [3.0, 2.0, 4.0], [1.0, 1.5, 1.2]
    one, other = process_ratio_t(cand, ref, 0.95), process_ratio_t(ref, cand, 0.95)
    assert other.value == pytest.approx(1 / (one.value or 0))
    assert (other.low, other.high) == pytest.approx((1 / (one.high or 0), 1 / (one.low or 0)))


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_processes_give_no_interval(count: int) -> None:
    """The value alone, and why."""
    found = process_ratio_t([1.2] * count, [1.0] * count, 0.9)
    assert found.value == pytest.approx(1.2)
    assert (found.low, found.high, found.method) == (None, None, "within this run")
    assert found.reason == f"{count} of the 3 processes that an interval takes"


def test_processes_that_agree_to_the_last_bit_prove_nothing() -> None:
    """A spread of 0 is a clock that ticks too seldom: an interval of no width would pass a gate."""
    found = process_ratio_t([1.2] * 3, [1.0] * 3, 0.9)
    assert (found.low, found.high) == (None, None)
    assert "to the last digit" in (found.reason or "")


def test_wild_times_have_ends_that_are_numbers() -> None:
    """Also at a confidence that Holm's correction may ask for."""
    found = process_ratio_t([1e-6, 1.0, 1e6], [1.0, 1.0, 1.0], 1 - 1e-9)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < 1 < found.high < math.inf


@pytest.mark.parametrize(
    ("cand", "ref", "what"),
    [
        ([1.0, 0.0, 1.0], [1.0] * 3, "above 0"),
        ([1.0, math.nan, 1.0], [1.0] * 3, "finite"),
        ([1.0], [1.0] * 3, "one shape"),
        ([], [], "at least 1"),
    ],
)
def test_what_is_no_time_is_refused(cand: list[float], ref: list[float], what: str) -> None:
    """A clock that stood still, or gave no number."""
    with pytest.raises(ValueError, match=what):
        process_ratio_t(cand, ref, 0.9)


def timed(
    rng: np.random.Generator, process: int, ratio: float = 1.0, batches: int = 8
) -> tuple[Floats, Floats]:
    """Seconds (B,) of both sides, in the product's order, on a machine that drifts.

    Each side of a process is off by 1% of its own (where its memory lies), in one process of ten
    one of them by 5% more; what was loaded first is half a percent faster. Meanwhile the clock
    falls by up to 20%, wanders by .2% a turn, and something else now and then takes the
    core.
    """
    sides = {"ref": 1.0, "cand": ratio}
    for name in sides:
        sides[name] *= math.exp(0.01 * rng.standard_normal())
        sides[name] *= 1.05 if rng.random() < 0.05 else 1.0
    sides["ref" if process % 2 else "cand"] /= 1.005
    count = 4 * batches
    drift = rng.uniform(0, 0.2) * np.linspace(0, 1, count) ** rng.choice([0.5, 1, 2])
    drift += 0.002 * rng.standard_normal(count).cumsum()
    spikes = np.where(rng.random(count) < 0.05, rng.exponential(0.1, count), 0)
    speed = np.exp(drift) * (1 + spikes) * np.exp(0.005 * rng.standard_normal(count))
    seconds = {"ref": np.zeros(batches), "cand": np.zeros(batches)}
    for batch in range(batches):
        for at, name in enumerate(turns(batch, process)):
            seconds[name][batch] += sides[name] * speed[4 * batch + at]
    return seconds["cand"], seconds["ref"]


@pytest.mark.parametrize("processes", [3, 4, 5])
def test_a_model_against_itself_is_no_faster(processes: int) -> None:
    """An A/A interval at 95% leaves out 1 at most one time in twenty, whatever the drift."""
    rng, out = np.random.default_rng(processes), 0
    for _ in range(TIMES):
        totals = np.array(
            [[s.sum() for s in timed(rng, number + 1)] for number in range(processes)]
        )
        found = process_ratio_t(totals[:, 0], totals[:, 1], 0.95)
        assert found.low is not None
        assert found.high is not None
        out += not found.low <= 1 <= found.high
    assert out / TIMES <= 0.05 + 2 * ERROR


def test_batches_of_one_process_are_no_sample() -> None:
    """An interval of them leaves out 1 more often than it may: why one process decides nothing."""
    rng, out = np.random.default_rng(0), 0
    for _ in range(500):
        cand, ref = timed(rng, 1, batches=21)
        found = cluster_skew_t(np.rint(1e9 * cand), np.rint(1e9 * ref), 0.95)
        assert found.low is not None
        assert found.high is not None
        out += not found.low <= 1 <= found.high
    assert out / 500 > 0.20
