"""Rates of rare events: no event seen is no proof of none, and a candidate at its limit fails."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import poisson

from evalharness.stats.event_rates import event_rate_t


@pytest.mark.parametrize("signed", [False, True])
def test_no_event_leaves_room_for_about_three(signed: bool) -> None:
    """As Poisson's law does, whatever the number of documents."""
    for documents in (20, 200):
        found = event_rate_t(np.zeros(documents), np.full(documents, 300), 0.9, signed=signed)
        assert found.value == 0
        assert found.high is not None
        assert found.low == (-found.high if signed else 0)
        exact = -np.log(0.05)  # events at which none is seen 5% of the time
        assert poisson.cdf(0, exact) == pytest.approx(0.05)
        assert 0.8 * exact < found.high * documents * 300 < 1.5 * exact


def test_exchanging_the_kinds_turns_a_signed_rate_over() -> None:
    """Each end becomes the other."""
    random = np.random.default_rng(3)
    net, counts = random.integers(-4, 6, 30), random.integers(50, 300, 30)
    there = event_rate_t(net, counts, 0.9, signed=True)
    back = event_rate_t(-net, counts, 0.9, signed=True)
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )


@pytest.mark.parametrize(("documents", "rate"), [(20, 0.0003), (50, 0.003), (50, 0.03)])
@pytest.mark.parametrize("signed", [False, True])
def test_a_candidate_at_its_limit_passes_no_more_than_it_should(
    documents: int, rate: float, signed: bool
) -> None:
    """Documents of unequal length and of unequal rates; 5% and two standard errors of 200 draws."""
    random = np.random.default_rng(5)
    passed = 0
    for _ in range(200):
        counts = random.integers(60, 500, documents)
        own = np.minimum(rate * np.exp(random.standard_normal(documents) - 0.5), 0.5)
        events = random.binomial(counts, own)
        lost = random.binomial(events, 0.7) if signed else events
        net = lost - (events - lost) if signed else events
        found = event_rate_t(net, counts, 0.9, signed=signed)
        assert found.high is not None
        passed += found.high < rate * (0.4 if signed else 1.0)
    assert passed / 200 < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize(("sums", "signed"), [([3, -1], False), ([3, 9], False), ([-9, 1], True)])
def test_more_events_than_tokens_are_refused(sums: list[int], signed: bool) -> None:
    """They are no rate."""
    with pytest.raises(ValueError, match="sums: must be from"):
        event_rate_t(sums, [5, 5], 0.9, signed=signed)


def test_one_document_has_no_interval() -> None:
    """How documents differ is not known."""
    assert event_rate_t([1], [50], 0.9).low is None
