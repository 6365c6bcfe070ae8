"""The mean of estimates from different data, by hand and by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evalharness.stats import Interval, mean_of_parts, no_narrower, tango

ERRORS = 2000


def part(value: float, low: float, high: float, clusters: int = 50) -> Interval:
    """An estimate over ``clusters`` items."""
    return Interval(value, low, high, 0.9, clusters, clusters, "by hand", (high - low) / 4)


def ends(interval: Interval) -> tuple[float, float, float]:
    """Its three numbers, all known."""
    assert None not in (interval.value, interval.low, interval.high)
    return interval.low, interval.value, interval.high  # type: ignore[return-value]


def test_distances_are_added_in_squares_on_each_side() -> None:
    """¼ and ¾ of (0 − .04, 0 + .08) and (.02 − .04, .02 + .04): 3-4-5 and 2-3-√13 triangles."""
    found = mean_of_parts([part(0.0, -0.16, 0.08), part(0.02, -0.02, 0.06)], [0.25, 0.75])
    assert ends(found) == pytest.approx((0.015 - 0.05, 0.015, 0.015 + math.sqrt(0.02**2 + 0.03**2)))
    assert (found.n, found.clusters) == (100, 100)
    assert found.method == "MOVER over 2 of by hand"
    assert found.se == pytest.approx(math.hypot(0.25 * 0.06, 0.75 * 0.02))


def test_one_part_is_itself() -> None:
    """With the whole weight."""
    one = part(0.01, -0.03, 0.02)
    assert ends(mean_of_parts([one], [1.0])) == pytest.approx(ends(one))


def test_parts_that_share_data_are_added_as_they_are() -> None:
    """All in one block: the mean of the ends, and no more clusters than there are."""
    parts = [part(-0.02, -0.04, 0.0, 30), part(0.0, -0.02, 0.02, 40)]
    found = mean_of_parts(parts, [0.5, 0.5], ["a", "a"])
    assert ends(found) == pytest.approx((-0.03, -0.01, 0.01))
    assert found.clusters == 30
    apart = mean_of_parts(parts, [0.5, 0.5], ["a", "b"])
    assert found.low is not None
    assert apart.low is not None
    assert found.low < apart.low
    mixed = mean_of_parts([*parts, part(0.0, -0.04, 0.04, 20)], [0.25, 0.25, 0.5], ["a", "a", "b"])
    assert mixed.value is not None
    assert mixed.low == pytest.approx(mixed.value - math.hypot(0.01, 0.02))
    assert mixed.clusters == 50


def test_a_part_without_an_interval_leaves_none() -> None:
    """And one without a value no value: nothing is left out of a mean."""
    bare = replace(part(0.1, 0, 0.2), low=None, high=None, reason="only one item")
    found = mean_of_parts([part(0.0, -0.1, 0.1), bare], [0.5, 0.5])
    assert (found.value, found.low, found.high) == (pytest.approx(0.05), None, None)
    assert found.reason == "only one item"
    lost = replace(bare, value=None, reason="NaN")
    found = mean_of_parts([bare, lost], [0.5, 0.5])
    assert (found.value, found.low, found.reason) == (None, None, "NaN")


@pytest.mark.parametrize(
    ("parts", "weights", "blocks"),
    [
        ([], [], None),
        ([part(0, -1, 1)], [0.5], None),
        ([part(0, -1, 1)] * 2, [1.5, -0.5], None),
        ([part(0, -1, 1)] * 2, [1.0], None),
        ([part(0, -1, 1)] * 2, [0.5, 0.5], ["a"]),
        ([part(0, -1, 1), replace(part(0, -1, 1), confidence=0.95)], [0.5, 0.5], None),
    ],
)
def test_what_is_no_mean_is_refused(
    parts: list[Interval], weights: list[float], blocks: list[str] | None
) -> None:
    """Weights that do not sum to 1, other lengths, other confidences."""
    with pytest.raises(ValueError, match=r"^(parts|weights)"):
        mean_of_parts(parts, weights, blocks)


def test_no_narrower_takes_the_outer_ends() -> None:
    """Each side by itself; what has no interval asks for nothing."""
    found, least = part(0.0, -0.1, 0.05), part(0.0, -0.05, 0.2)
    wide = no_narrower(found, least)
    assert ends(wide) == (-0.1, 0.0, 0.2)
    assert wide.method == "by hand; no narrower than by hand"
    bare = replace(least, low=None, high=None, reason="none")
    assert no_narrower(found, bare) is found
    assert no_narrower(bare, found) is bare


@pytest.mark.parametrize(("flips", "loss"), [(0.05, 0.01), (0.1, 0.01), (0.03, 0.02)])
def test_it_covers_the_mean_of_many_small_samples(flips: float, loss: float) -> None:
    """57 leaves of 100 to 250 items; the loss differs from leaf to leaf."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(100, 251, 57)
    own = loss * rng.gamma(2, 0.5, 57)
    own *= loss / own.mean()
    own = np.minimum(own, flips)
    known: dict[tuple[int, int, int], Interval] = {}
    beyond = held = 0
    weights = [1 / 57] * 57
    for _ in range(ERRORS // 10):
        down = rng.binomial(sizes, (flips + own) / 2)
        up = rng.binomial(sizes - down, (flips - own) / 2 / (1 - (flips + own) / 2))
        parts = []
        for key in zip(up.tolist(), down.tolist(), sizes.tolist(), strict=True):
            if key not in known:
                known[key] = tango(*key, 0.9)
            parts.append(known[key])
        low, _, high = ends(mean_of_parts(parts, weights))
        beyond += low > -own.mean()
        held += low <= -own.mean() <= high
    times = ERRORS // 10
    assert beyond / times <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / times)
    assert held / times >= 0.9 - 2 * math.sqrt(0.09 / times)
