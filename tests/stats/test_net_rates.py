"""Net rates of rare events: none seen is no proof of none, and a candidate at its limit fails."""

from __future__ import annotations

import numpy as np
import pytest

from evalharness.stats.net_rates import net_rate_t


@pytest.mark.parametrize("documents", [5, 20, 200])
def test_no_event_leaves_room_for_three_and_more(documents: int) -> None:
    """Poisson's law leaves room for 3 at 95%; fewer documents say less of how they differ."""
    found = net_rate_t(np.zeros(documents), np.full(documents, 300), 0.9)
    assert found.value == 0
    assert found.high is not None
    assert found.low == -found.high
    assert -np.log(0.05) < found.high * documents * 300 < 60


def test_exchanging_the_kinds_turns_the_interval_over() -> None:
    """Each end becomes the other."""
    random = np.random.default_rng(3)
    net, counts = random.integers(-4, 6, 30), random.integers(50, 300, 30)
    there, back = net_rate_t(net, counts, 0.9), net_rate_t(-net, counts, 0.9)
    assert back.value is not None
    assert back.low is not None
    assert back.high is not None
    expected = -back.value, -back.high, -back.low
    assert (there.value, there.low, there.high) == pytest.approx(expected)


@pytest.mark.parametrize(("documents", "rate"), [(20, 0.0003), (50, 0.003), (50, 0.03)])
@pytest.mark.parametrize("lost", [0.7, 1.0])
def test_a_candidate_at_its_limit_passes_no_more_than_it_should(
    documents: int, rate: float, lost: float
) -> None:
    """Documents of unequal length and of unequal rates; 5% and two standard errors of 200 draws."""
    random = np.random.default_rng(5)
    passed = 0
    for _ in range(200):
        counts = random.integers(60, 500, documents)
        own = np.minimum(rate * np.exp(random.standard_normal(documents) - 0.5), 0.5)
        events = random.binomial(counts, own)
        found = net_rate_t(2 * random.binomial(events, lost) - events, counts, 0.9)
        assert found.high is not None
        passed += found.high < rate * (2 * lost - 1)
    assert passed / 200 < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_more_events_than_tokens_are_refused() -> None:
    """They are no rate."""
    for sums in ([3, 9], [-9, 1]):
        with pytest.raises(ValueError, match="sums: must be from -1 to 1"):
            net_rate_t(sums, [5, 5], 0.9)


def test_one_document_has_no_interval() -> None:
    """How documents differ is not known."""
    assert net_rate_t([1], [50], 0.9).low is None
