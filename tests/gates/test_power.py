"""The number of documents or items that a plan names gives the power it names, by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats as sps

from evalharness.gates import needs
from evalharness.gates.forecast import rate_needed
from evalharness.metrics import REGISTRY, Spread
from evalharness.stats import clopper_pearson, paired_shift
from tests.gates.fakes import gate

WORLDS: dict[str, Any] = {
    "lognormal .5": sps.lognorm(0.5, scale=math.exp(-0.125)),
    "lognormal 1": sps.lognorm(1, scale=math.exp(-0.5)),
    "gamma 2": sps.gamma(2, scale=0.5),
    "gamma .5": sps.gamma(0.5, scale=2),
    "normal": sps.norm(1, 1),
}
TIMES = 400
Draw = Callable[[np.random.Generator, int], Any]


def planned(rule: str, spread: Spread | None = None) -> int:
    metric = rule.split(",")[0].removeprefix("metric: ")
    (need,) = needs(gate(rule), {metric: (spread,)} if spread else None)
    assert need.to_pass is not None
    return need.to_pass


def power(metric: str, limit: float, size: int, draw: Draw) -> float:
    """The share of samples whose interval, the metric's own, keeps the limit."""
    rng, info = np.random.default_rng(5), REGISTRY[metric]
    ends = [
        info.transform(info.of_totals(draw(rng, size), np.ones(size), 0.90)).high
        for _ in range(TIMES)
    ]
    return float(np.mean([high is not None and high <= limit for high in ends]))


@pytest.mark.parametrize("limit", [1.3, 1.5])
@pytest.mark.parametrize("world", [w for w in WORLDS if w != "normal"])
def test_mean_kl_passes_four_times_in_five_after_what_an_earlier_run_plans(
    world: str, limit: float
) -> None:
    """The earlier run has 400 documents, so that its luck is no matter here."""
    drawn = WORLDS[world].ppf((np.arange(400) + 0.5) / 400)
    spread = Spread(1.0, float(drawn.mean()), parts=(drawn, np.ones(400)))
    # As much above that run's mean as is meant above the true one.
    size = planned(f"metric: kl.mean, max: {limit - 1 + float(drawn.mean())}, min_n: 2", spread)
    found = power("kl.mean", limit, size, lambda rng, n: WORLDS[world].rvs(n, random_state=rng))
    assert 0.75 <= found <= 0.92


@pytest.mark.parametrize("limit", [0.3, 0.5])
@pytest.mark.parametrize("world", list(WORLDS))
def test_a_loss_shift_passes_four_times_in_five_after_what_an_earlier_run_plans(
    world: str, limit: float
) -> None:
    """Its documents are skewed as those of the earlier run are; the shift is 0."""
    drawn = WORLDS[world].ppf((np.arange(400) + 0.5) / 400)
    drawn -= drawn.mean()
    spread = Spread(1.0, 0.0, parts=(drawn, np.ones(400)))
    size = planned(f"metric: nll.shift, max: {limit}, min_n: 2", spread)
    found = power(
        "nll.shift", limit, size, lambda rng, n: WORLDS[world].rvs(n, random_state=rng) - 1
    )
    assert 0.75 <= found <= 0.92


def test_defaults_give_their_power_to_the_candidate_they_stand_for() -> None:
    """Perplexity of normal shifts, and KL of lognormal documents at half its limit."""
    size = planned("metric: perplexity.ratio, max: 1.01, min_n: 2")
    found = power("perplexity.ratio", 1.01, size, lambda rng, n: rng.normal(0, 0.03, n))
    assert 0.75 <= found <= 0.92
    size = planned("metric: kl.mean, max: 0.01")
    sigma = math.sqrt(math.log1p(0.53**2))
    found = power(
        "kl.mean", 0.01, size, lambda rng, n: 0.005 * rng.lognormal(-(sigma**2) / 2, sigma, n)
    )
    assert 0.75 <= found <= 0.92


@pytest.mark.parametrize(("margin", "flips"), [(0.01, 0.05), (0.02, 0.05), (0.05, 0.1)])
def test_binary_items_pass_four_times_in_five(margin: float, flips: float) -> None:
    """As many flip one way as the other."""
    spread = Spread(math.sqrt(flips))
    size = planned(f"metric: task.score.shift, min: {-margin}, min_n: 2", spread)
    rng = np.random.default_rng(6)
    up, down, _ = rng.multinomial(size, [flips / 2, flips / 2, 1 - flips], TIMES).T
    lows = [paired_shift(b, c, size, 0.90).low for b, c in zip(up, down, strict=True)]
    found = float(np.mean([low is not None and low >= -margin for low in lows]))
    assert 0.75 <= found <= 0.92


@pytest.mark.parametrize(("rate", "limit"), [(0.0, 0.03), (0.0025, 0.05), (0.05, 0.1), (0.2, 0.25)])
def test_a_share_needs_the_least_that_has_the_power(rate: float, limit: float) -> None:
    """Against the binomial by brute force, with Clopper and Pearson's own end."""

    def exact(size: int) -> float:
        most = -1
        while (clopper_pearson(most + 1, size, 0.90).high or 1.0) <= limit:
            most += 1
        return float(sps.binom.cdf(most, size, rate))

    needed = rate_needed(rate, limit, 0.05, 0.8)
    assert needed is not None
    assert exact(needed) >= 0.8
    assert max(exact(size) for size in range(2, needed)) < 0.8
    assert rate_needed(limit, limit, 0.05, 0.8) is None
