"""The levels at which a policy's FAILs are tested, against statsmodels and by simulation."""

from __future__ import annotations

import random
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from evalharness.gates.holm import levels

ALPHA = 0.05


def rejected(p_values: list[float], weights: list[float] | None = None) -> list[bool]:
    """Which hypotheses fall at 5%."""
    found = levels(
        p_values,
        weights or [1.0] * len(p_values),
        ALPHA,
        lambda i, level: p_values[i] <= level,
    )
    return [p <= level for p, level in zip(p_values, found, strict=True)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_with_equal_weights_it_is_the_test_of_statsmodels(p_values: list[float]) -> None:
    """The same hypotheses are rejected."""
    with patch("gc.collect"):  # which multipletests calls each time
        expected = multipletests(p_values, ALPHA, method="holm")[0]
    assert rejected(p_values) == expected.tolist()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20, unique=True), st.randoms())
def test_the_order_of_the_gates_does_not_matter(
    p_values: list[float], shuffle: random.Random
) -> None:
    """Shuffled hypotheses are rejected as before."""
    order = list(range(len(p_values)))
    shuffle.shuffle(order)
    before = rejected(p_values)
    assert rejected([p_values[i] for i in order]) == [before[i] for i in order]


def test_nothing_to_test_has_no_levels() -> None:
    """No gates, no values."""
    assert levels([], [], ALPHA, lambda i, level: True) == []


@pytest.mark.parametrize("weights", [[1.0] * 8, [1.0] + [1 / 7] * 7])
def test_eight_gates_at_their_limits_rarely_fail_together(weights: list[float]) -> None:
    """Some gate of eight independent ones fails 5% of the time, and 34% without a correction."""
    p = np.random.default_rng(0).random((4000, 8))
    assert np.mean((p <= ALPHA).any(axis=1)) == pytest.approx(0.34, abs=0.03)
    wrong = [any(rejected(row.tolist(), weights)) for row in p]
    assert np.mean(wrong) == pytest.approx(ALPHA, abs=0.015)
