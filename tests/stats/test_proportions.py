"""Score and exact intervals for proportions against published values and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as sps

from evalharness.stats import clopper_pearson, paired_shift, tango

tables = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 200)).filter(
    lambda t: sum(t) >= 2
)


def test_tango_agrees_with_a_published_interval() -> None:
    """Airway reactivity, 7 and 1 discordant of 21: 0.026 to 0.517 (Fagerland et al. 2014)."""
    got = tango(7, 1, 21, 0.95)
    assert (got.low, got.high) == pytest.approx((0.026, 0.517), abs=5e-4)


def score_by_maximum_likelihood(b: int, c: int, n: int, delta: float) -> float:
    """Compute Tango's statistic with the restricted likelihood maximised numerically."""

    def loss(q: float) -> float:  # q = p21, p12 = q + Δ, the rest concordant
        cells = [(b, q + delta), (c, q), (n - b - c, 1 - 2 * q - delta)]
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    bounds = (max(0.0, -delta), (1 - delta) / 2)
    q = float(optimize.minimize_scalar(loss, bounds=bounds, options={"xatol": 1e-12}).x)
    return (b - c - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))


@pytest.mark.parametrize(("b", "c", "n"), [(40, 20, 160), (3, 9, 44), (0, 5, 30), (12, 12, 60)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_tango_inverts_the_score_of_the_restricted_likelihood(
    b: int, c: int, n: int, confidence: float
) -> None:
    """At both ends the statistic, with its likelihood maximised by scipy, is ±z."""
    got = tango(b, c, n, confidence)
    z = sps.norm.ppf(0.5 + confidence / 2)
    assert got.low is not None
    assert got.high is not None
    assert score_by_maximum_likelihood(b, c, n, got.low) == pytest.approx(z, abs=1e-4)
    assert score_by_maximum_likelihood(b, c, n, got.high) == pytest.approx(-z, abs=1e-4)


def test_no_discordant_pair_is_not_proof_of_no_change() -> None:
    """With b = c = 0 the interval is ±z²/(n + z²)."""
    z2 = sps.norm.ppf(0.975) ** 2
    got = tango(0, 0, 100, 0.95)
    assert (got.value, got.low, got.high) == pytest.approx((0, -z2 / (100 + z2), z2 / (100 + z2)))


def test_all_pairs_discordant_one_way_end_at_1() -> None:
    """With b = n the upper end is 1 and the lower below it."""
    got = tango(20, 0, 20, 0.95)
    assert got.high == 1.0
    assert got.low is not None
    assert got.low < 1


@given(tables)
def test_swapping_the_sides_mirrors_tango(table: tuple[int, int, int]) -> None:
    """Exchanging b and c negates the value and mirrors the interval."""
    b, c, rest = table
    one, other = tango(b, c, sum(table), 0.95), tango(c, b, b + c + rest, 0.95)
    assert one.value == -other.value  # type: ignore[operator]
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)  # type: ignore[operator]


@given(tables)
def test_tango_stays_within_minus_1_and_1_and_holds_its_value(table: tuple[int, int, int]) -> None:
    """−1 <= low <= value <= high <= 1 for every table."""
    got = tango(table[0], table[1], sum(table), 0.95)
    assert got.low is not None
    assert -1 <= got.low <= got.value <= got.high <= 1  # type: ignore[operator]


def test_tango_rarely_passes_a_drop_equal_to_the_margin() -> None:
    """At a true drop of 2 points with 6% flips, the one-sided error is about 5%, as enumerated."""
    n, drop, flips = 400, 0.02, 0.06
    chances = [(flips - drop) / 2, (flips + drop) / 2]
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n, [*chances, 1 - flips], size=4000)[:, :2]
    kinds, times = np.unique(counts, axis=0, return_counts=True)
    passed = sum(
        t
        for (b, c), t in zip(kinds.tolist(), times.tolist(), strict=True)
        if tango(b, c, n, 0.9).low > -drop  # type: ignore[operator]
    )
    assert 0.03 <= passed / 4000 <= 0.06


@pytest.mark.parametrize(("n", "most"), [(10, 0.069), (30, 0.063), (100, 0.0615)])
def test_no_drop_passes_at_its_limit_much_above_5_percent(n: int, most: float) -> None:
    """Enumerated over all tables, every limit that an end can be and many rates of both changes.

    Where nothing rises it is exact, and Tango's own interval errs up to 9%.
    """
    up, down = (k.ravel() for k in np.meshgrid(np.arange(min(n, 20) + 1), np.arange(n + 1)))
    kept = (up + down <= n) & (down < 25)
    up, down = up[kept], down[kept]
    tables = list(zip(up.tolist(), down.tolist(), strict=True))
    lows = {
        f: np.array([float(f(*t, n, 0.9).low or 0) for t in tables]) for f in (paired_shift, tango)
    }
    limits = np.unique(-lows[paired_shift][(lows[paired_shift] < 0) & (up < 3)])
    for mean_up in (0.0, 0.25, 1.0, 2.0, 4.0):
        for limit in limits[limits < 0.3]:
            rise = mean_up / n
            if 2 * rise + limit > 1:
                continue
            chances = [rise, rise + limit, 1 - 2 * rise - limit]
            weight = sps.multinomial.pmf(np.column_stack([up, down, n - up - down]), n, chances)
            passed = weight[lows[paired_shift] >= -limit - 1e-12].sum()
            assert passed <= (0.05 + 1e-9 if not mean_up else most), (limit, mean_up)
    unseen = -lows[tango][(up == 0) & (down == 0)][0]
    assert (1 - unseen) ** n > 0.066, "what the exact end is for"


@given(tables)
def test_changes_both_ways_are_tangos_and_one_way_no_nearer(table: tuple[int, int, int]) -> None:
    """On either side, with Clopper and Pearson's bound of what was seen."""
    b, c, n = table[0], table[1], sum(table)
    found, plain = paired_shift(b, c, n, 0.9), tango(b, c, n, 0.9)
    if b and c:
        assert found == plain
        return
    bound = float(clopper_pearson(max(b, c), n, 0.9).high or 0)
    assert found.low == pytest.approx(min(plain.low, -bound) if not b else plain.low)  # type: ignore[type-var]
    assert found.high == pytest.approx(max(plain.high, bound) if not c else plain.high)  # type: ignore[type-var]


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 5), (3, 3, 5)])
def test_impossible_tables_are_refused(b: int, c: int, n: int) -> None:
    """Negative counts and more discordant pairs than pairs are errors."""
    with pytest.raises(ValueError, match="b, c, n: must be at least 0 with b"):
        tango(b, c, n, 0.95)


@pytest.mark.parametrize(("k", "n"), [(0, 50), (1, 50), (25, 50), (50, 50), (3, 7)])
def test_clopper_pearson_is_scipys(k: int, n: int) -> None:
    """It equals scipy's exact binomial interval."""
    expected = sps.binomtest(k, n).proportion_ci(0.9, method="exact")
    got = clopper_pearson(k, n, 0.9)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    """k outside 0 … n is an error."""
    with pytest.raises(ValueError, match="k, n: must have 0 <= k <= n"):
        clopper_pearson(k, n, 0.95)


@pytest.mark.parametrize(("n", "value"), [(0, None), (1, 0.0)])
def test_one_item_gives_no_interval(n: int, value: float | None) -> None:
    """One item has a value and no interval; none has neither."""
    for got in (tango(0, 0, n, 0.95), clopper_pearson(0, n, 0.95)):
        assert (got.value, got.low, got.high, got.n) == (value, None, None, n)
        assert got.reason


@pytest.mark.parametrize("confidence", [95, 0, 1])
def test_a_percentage_is_refused(confidence: float) -> None:
    """Confidence is a fraction here too."""
    with pytest.raises(ValueError, match=r"confidence: must be in \(0,1\), got"):
        tango(1, 2, 10, confidence)
    with pytest.raises(ValueError, match=r"confidence: must be in \(0,1\), got"):
        clopper_pearson(1, 10, confidence)
