"""Boundaries of planned looks against published tables and simulated walks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from evalharness.stats import cluster_ratio_t, look_confidence
from evalharness.stats.sequential import obrien_fleming

FIVE_LOOKS = (0.2, 0.4, 0.6, 0.8, 1.0)


def test_five_looks_are_the_published_boundaries() -> None:
    """Lan–DeMets O'Brien–Fleming bounds, one-sided .025 (Jennison & Turnbull, table 7.6)."""
    assert obrien_fleming(0.025, FIVE_LOOKS) == pytest.approx(
        [4.877, 3.357, 2.680, 2.290, 2.031], abs=5e-4
    )


def test_two_looks_agree_with_the_bivariate_normal() -> None:
    """The second bound solves scipy's bivariate normal probability."""
    first, second = obrien_fleming(0.05, [0.5, 1.0])
    joint = sps.multivariate_normal(cov=[[1, math.sqrt(0.5)], [math.sqrt(0.5), 1]])
    assert 1 - joint.cdf([first, second]) == pytest.approx(0.05, abs=1e-4)


def test_one_look_at_the_end_is_an_ordinary_test() -> None:
    """A single look at all the data has the ordinary bound."""
    assert obrien_fleming(0.05, [1.0]) == pytest.approx([sps.norm.ppf(0.95)])


def test_uneven_looks_spend_the_same_error() -> None:
    """A walk crosses uneven bounds with probability α, by simulation."""
    fractions = [0.15, 0.5, 0.6, 1.0]
    steps = np.sqrt(np.diff(fractions, prepend=0.0))
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.standard_normal((400_000, 4)) * steps, axis=1) / np.sqrt(fractions)
    crossed = (walk >= obrien_fleming(0.05, fractions)).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=0.0015)


def test_a_look_depends_on_the_past_alone() -> None:
    """Bounds up to the third of five looks are those of three looks."""
    assert obrien_fleming(0.05, FIVE_LOOKS[:3]) == pytest.approx(
        obrien_fleming(0.05, FIVE_LOOKS)[:3]
    )


@pytest.mark.parametrize("fractions", [[], [0.0, 1.0], [0.5, 0.5], [0.5, 1.5], [0.6, 0.4]])
def test_fractions_rise_to_1(fractions: list[float]) -> None:
    """Looks that do not rise within (0, 1] are refused."""
    with pytest.raises(ValueError, match="fractions: must rise within"):
        obrien_fleming(0.05, fractions)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 5])
def test_alpha_is_one_sided(alpha: float) -> None:
    """A level outside (0, 0.5) is refused."""
    with pytest.raises(ValueError, match="alpha: must be in"):
        obrien_fleming(alpha, FIVE_LOOKS)


def test_the_confidence_of_a_look_is_that_of_its_bound() -> None:
    """Two-sided, from the bound of the last look; at one look it is the confidence itself."""
    z = obrien_fleming(0.05, [0.2, 0.4])[-1]
    assert look_confidence(0.9, [0.2, 0.4]) == pytest.approx(1 - 2 * sps.norm.sf(z))
    assert look_confidence(0.9, [1.0]) == pytest.approx(0.9)


def test_looking_five_times_errs_as_rarely_as_promised() -> None:
    """At the limit, a false PASS or FAIL at any of five looks is each about 5%."""
    rng = np.random.default_rng(2)
    wrong = np.zeros(2)
    for _ in range(200):
        sums = rng.normal(size=250)
        for k in range(1, 6):
            level = look_confidence(0.9, FIVE_LOOKS[:k])
            got = cluster_ratio_t(sums[: 50 * k], np.ones(50 * k), level)
            assert got.low is not None
            assert got.high is not None
            if got.low > 0 or got.high < 0:
                wrong += [got.high < 0, got.low > 0]
                break
    assert (wrong / 200 <= 0.05 + 0.04).all()
