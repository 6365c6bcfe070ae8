"""Sequences that may be looked at all the time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from evalharness.stats import cluster_ratio_t, mean_sequence, rate_sequence


def test_a_mean_sequence_waits_for_its_burn_in() -> None:
    """With 29 documents there is a value and a reason, with 30 an interval."""
    values = np.random.default_rng(0).normal(size=30)
    early = mean_sequence(values[:29], np.ones(29), 0.9, 100)
    assert early.value == pytest.approx(values[:29].mean())
    assert (early.low, early.reason) == (None, "fewer than 30 documents (got 29)")
    assert mean_sequence(values, np.ones(30), 0.9, 100).low is not None


def test_the_mean_sequence_is_the_published_formula() -> None:
    """The half-width is σ̂·√(2(tρ²+1)/(t²ρ²)·ln(√(tρ²+1)/α))."""
    values = np.random.default_rng(1).normal(size=64)
    rho2 = (-2 * math.log(0.1) + math.log(-2 * math.log(0.1)) + 1) / 100
    expected = values.std(ddof=1) * math.sqrt(
        2 * (64 * rho2 + 1) / (64**2 * rho2) * math.log(math.sqrt(64 * rho2 + 1) / 0.1)
    )
    got = mean_sequence(values, np.ones(64), 0.9, 100)
    assert got.high - got.value == pytest.approx(expected)  # type: ignore[operator]


def test_it_is_wider_than_a_single_look() -> None:
    """Looking all the time costs width at every moment."""
    values = np.random.default_rng(2).normal(size=500)
    once = cluster_ratio_t(values, np.ones(500), 0.9)
    always = mean_sequence(values, np.ones(500), 0.9, 250)
    assert always.high > 1.2 * once.high - 0.2 * once.value  # type: ignore[operator]


def test_a_mean_sequence_covers_at_all_times_together() -> None:
    """Over skewed documents, from the burn-in to 400, the truth leaves at most 12% of 90% ones."""
    rng = np.random.default_rng(3)
    left = 0
    for _ in range(250):
        values = rng.gamma(2.0, 1.0, 400)
        looks = (mean_sequence(values[:g], np.ones(g), 0.9, 200) for g in range(30, 401, 10))
        left += any(not i.low <= 2.0 <= i.high for i in looks)  # type: ignore[operator]
    assert left / 250 <= 0.12


@pytest.mark.parametrize("rate", [0.02, 0.5])
def test_a_rate_sequence_covers_at_all_times_together(rate: float) -> None:
    """Rates once refuted stay out, so the last of 400 looks tells of all: 10% at most miss."""
    rng = np.random.default_rng(4)
    hits = (rng.random((400, 400)) < rate).astype(float)
    last = [rate_sequence(row, np.ones(400), 0.9, 1) for row in hits]
    left = sum(not i.low <= rate <= i.high for i in last)  # type: ignore[operator]
    assert left / 400 <= 0.10


def test_the_ends_of_a_rate_sequence_are_where_capital_reaches_its_goal() -> None:
    """A plain replay of both bettors, halves mixed, puts the ends where the goal is first met."""
    rng = np.random.default_rng(5)
    hits = (rng.random(200) < 0.1).astype(float)
    stakes, rate, squares = [], 0.5, 0.25
    total, spread = 0.5, 0.25
    for g, x in enumerate(hits, start=1):
        stakes.append(math.sqrt(2 * math.log(20) / (squares * g * math.log(1 + g))))
        total += x
        rate = total / (g + 1)
        spread += (x - rate) ** 2
        squares = spread / (g + 1)

    def best(m: float, sign: int) -> float:
        capital, most = [0.5, 0.5], 0.0
        for stake, x in zip(stakes, hits, strict=True):
            for i, bold in enumerate((0.4, 0.95)):
                held = min(stake, bold / (m if sign > 0 else 1 - m))
                capital[i] *= 1 + sign * held * (x - m)
            most = max(most, sum(capital))
        return most - 20

    got = rate_sequence(hits, np.ones(200), 0.9, 1)
    assert got.low == pytest.approx(optimize.brentq(lambda m: best(m, 1), 1e-4, 0.1), abs=1e-6)
    assert got.high == pytest.approx(optimize.brentq(lambda m: best(m, -1), 0.1, 0.9), abs=1e-6)


def test_rates_over_documents_weigh_tokens() -> None:
    """The value is events over tokens, and documents of no tokens are dropped."""
    got = rate_sequence([1, 0, 3], [10, 0, 30], 0.9, 50)
    assert (got.value, got.clusters) == (0.1, 2)


@pytest.mark.parametrize(
    ("sums", "counts", "longest", "message"),
    [
        ([2.0, 0.0], [1, 1], 1, "sums: must be between 0 and the count"),
        ([1.0, 1.0], [3, 1], 2, "longest: must be at least the largest count 3, got 2"),
        ([1.0], [1, 1], 1, "must have one shape"),
    ],
)
def test_impossible_rates_are_refused(
    sums: list[float], counts: list[int], longest: int, message: str
) -> None:
    """More events than tokens, a bound that is none, and shapes that differ are errors."""
    with pytest.raises(ValueError, match=message):
        rate_sequence(sums, counts, 0.9, longest)


def test_a_sequence_needs_a_target() -> None:
    """A tuning target below one document is refused."""
    with pytest.raises(ValueError, match="tuned_for: must be at least 1, got 0"):
        mean_sequence(np.ones(40), np.ones(40), 0.9, 0)
