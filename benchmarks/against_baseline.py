"""Gates relative to a baseline, each on pairs of runs whose truth lies exactly at its limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from at_limit import CONFIDENCE, Case, Gate
from simulated import kl_tokens, lengths

from evalharness.gates.ratchet import both_errors
from evalharness.metrics import REGISTRY
from evalharness.metrics.paired import Outcomes, compared, compared_parts
from evalharness.spec.estimate import Estimate
from evalharness.stats import (
    Interval,
    cluster_ratio_t,
    cluster_skew_t,
    quantile_bootstrap,
    sequence_of,
    tango,
)

Pair = tuple[Any, Any, Any]  # sums of this run and of the stored one, rows of each document
WORLDS: dict[str, Callable[[Any, int], Any]] = {  # what documents are like, of mean 1
    "lognormal 0.5": lambda rng, g: np.exp(rng.normal(0, 0.5, g) - 0.125),
    "lognormal 1": lambda rng, g: np.exp(rng.normal(0, 1, g) - 0.5),
    "Pareto(3)": lambda rng, g: (rng.pareto(3, g) + 1) / 1.5,
    "gamma(1/2)": lambda rng, g: rng.gamma(0.5, 2, g),
    "alike": lambda rng, g: np.ones(g),
}


def divergence(rng: Any, documents: int, world: str, worse: float, noise: float) -> Pair:
    """KL of two candidates whose documents share what makes them hard, but for ``noise``."""
    n = lengths(rng, documents, 300)
    hard = WORLDS[world](rng, documents)
    own = np.exp(rng.normal(0, noise, (2, documents)) - noise**2 / 2)
    return n * worse * hard * own[0], n * hard * own[1], n


def shift(rng: Any, documents: int, worse: float) -> Pair:
    """Loss shifts of both signs that share heavy-tailed document effects."""
    n = lengths(rng, documents)
    both = 0.035 * (rng.gamma(1, 1, documents) - 1) + 0.045 * rng.standard_t(5, documents)
    own = 0.02 * rng.standard_t(5, (2, documents)) + rng.normal(0, 0.3, (2, documents)) / n**0.5
    return n * (worse + both + own[0]), n * (both + own[1]), n


def flips(rng: Any, documents: int, rate: float, more: float) -> Pair:
    """Tokens that flip; those of the stored candidate and ``more`` of others, by document."""
    n = lengths(rng, documents)
    hard = rng.gamma(1, 1, documents)
    both = rng.binomial(n, np.minimum(rate * hard, 1))
    new, gone = (rng.binomial(n, np.minimum(s * hard, 1)) for s in (rate / 2 + more, rate / 2))
    return both + new, both + gone, n


def items(rng: Any, count: int, changed: float, lost: float) -> Pair:
    """Right-or-wrong items: what each candidate lost against the reference."""
    right = rng.random(count) < 0.6
    stored = right ^ (rng.random(count) < 0.05)
    turned = np.where(stored, (changed + lost) / 2 / 0.59, (changed - lost) / 2 / 0.41)
    now = stored ^ (rng.random(count) < turned)
    return right - now.astype(float), right - stored.astype(float), np.ones(count)


def outcomes(sums: Any, n: Any) -> Outcomes:
    keys = np.arange(1, n.size + 1, dtype=np.uint64)
    return Outcomes(keys, np.asarray(sums, float), np.asarray(n, float))


def paired(metric: str, slope: float, limit: float, side: int, draw: Pair, _: int) -> float | None:
    """How far an end of the product's interval is beyond the limit, negative inside."""
    now, stored, n = draw
    found = compared(REGISTRY[metric], outcomes(now, n), outcomes(stored, n), slope, CONFIDENCE)
    assert found is not None
    end = found.interval.high if side > 0 else found.interval.low
    return None if end is None else side * (end - limit)


def whenever(metric: str, slope: float, limit: float, draw: Pair, _: int) -> float | None:
    """The closest that the upper end of a run that may stop after every tenth document comes."""
    now, stored, n = draw
    whole, ends = outcomes(stored, n), []
    for g in range(30, n.size + 1, 10):
        found = compared(
            REGISTRY[metric],
            outcomes(now[:g], n[:g]),
            whole,
            slope,
            CONFIDENCE,
            partial(sequence_of, tuned_for=n.size // 5),
        )
        assert found is not None
        if found.interval.high is not None:
            ends.append(found.interval.high - limit)
    return min(ends, default=None)


def group(limit: float, draw: list[Pair], _: int) -> float | None:
    """The upper end of a group of tasks that count alike, judged task by task."""
    parts = [(outcomes(now, n), outcomes(stored, n)) for now, stored, n in draw]
    weights = [1 / len(parts)] * len(parts)
    found = compared_parts(
        REGISTRY["task.score.shift"], parts, weights, range(len(parts)), 1.0, CONFIDENCE
    )
    assert found is not None
    return None if found.interval.high is None else found.interval.high - limit


def _estimate(found: Interval) -> Estimate:
    return Estimate(
        id="x",
        value=found.value,
        low=found.low,
        high=found.high,
        confidence=found.confidence,
        clusters=found.clusters,
        reason=found.reason,
    )


def separate(
    interval: Any, slope: float, limit: float, side: int, runs: tuple[Any, Any]
) -> float | None:
    """The same with both errors; the stored interval is at 95%, as a run's table shows it."""
    now, stored = (_estimate(interval(run, c)) for run, c in zip(runs, (CONFIDENCE, 0.95)))
    if now.low is None or stored.low is None or stored.value is None:
        return None
    judged = both_errors(now, stored, (slope,), CONFIDENCE)
    end = judged.high if side > 0 else judged.low
    return None if end is None else side * (end - slope * stored.value - limit)


def bare(
    interval: Any, slope: float, limit: float, side: int, runs: tuple[Any, Any]
) -> float | None:
    """The same with the stored value taken as exact."""
    now, stored = (interval(run, CONFIDENCE) for run in runs)
    end = now.high if side > 0 else now.low
    known = end is not None and stored.value is not None
    return side * (end - slope * stored.value - limit) if known else None


def two(draw: Pair) -> tuple[Any, Any]:
    return (draw[0], draw[2]), (draw[1], draw[2])


def of_mean(
    metric: str, slope: float, limit: float, interval: Any, apart: bool = False
) -> list[Gate]:
    """The ends of the product's interval, and what one might take instead of it.

    ``interval`` is of one run by itself; ``apart``: a gate with both errors is judged as well.
    """
    gates: list[Gate] = []
    for side, name in ((1, ""), (-1, " (FAIL)")):
        # Of its two errors a false PASS is the one that must not be.
        gates.append((f"paired{name}", side > 0, partial(paired, metric, slope, limit, side)))
        for what, judged, end in (
            ("both errors", side > 0, separate),
            ("stored value as exact", False, bare),
        ):
            if apart or end is bare:
                gates.append(
                    (
                        f"{what}{name}",
                        judged,
                        lambda d, r, s=side, e=end: e(interval, slope, limit, s, two(d)),
                    )
                )
    return [*gates, ("cluster t", False, lambda d, r: _plain(d, slope, limit))]


def _plain(draw: Pair, slope: float, limit: float) -> float | None:
    high = cluster_ratio_t(draw[0] - slope * draw[1], draw[2], CONFIDENCE).high
    return None if high is None else high - limit


def _signed(run: Any, confidence: float) -> Interval:
    return cluster_skew_t(*run, confidence)


def _right(run: Any, confidence: float) -> Interval:
    return tango(int((run[0] > 0).sum()), int((run[0] < 0).sum()), run[0].size, confidence)


def against_baseline(times: int) -> Iterator[Case]:
    """Every case, drawn ``times`` times; ends are from the limit, and below 0 inside."""
    for documents in (20, 50, 200):
        for world, noise in product(WORLDS, (0.15, 0.5)):
            yield (
                f"KL 10% above, {world}, own {noise}, {documents} documents",
                0.0,
                partial(divergence, documents=documents, world=world, worse=1.1, noise=noise),
                times,
                of_mean("kl.mean", 1.1, 0.0, _signed),
            )
        yield (
            f"KL 0.2 above, lognormal 1, {documents} documents",
            0.0,
            partial(divergence, documents=documents, world="lognormal 1", worse=1.2, noise=0.3),
            times,
            of_mean("kl.mean", 1.0, 0.2, _signed),
        )
        yield (
            f"loss shift .01 above, {documents} documents",
            0.0,
            partial(shift, documents=documents, worse=0.01),
            times,
            of_mean("nll.shift", 1.0, 0.01, _signed, apart=True),
        )
        for rate, more in ((0.05, 0.005), (0.002, 0.002)):
            yield (
                f"token flips {more:.1%} above {rate:.1%}, {documents} documents",
                0.0,
                partial(flips, documents=documents, rate=rate, more=more),
                times,
                of_mean("top1.agreement", 1.0, more, _signed),
            )
    for count, changed, lost in ((100, 0.06, 0.05), (400, 0.03, 0.02), (2000, 0.02, 0.005)):
        yield (
            f"task drop {lost:.1%}, {count} items",
            0.0,
            partial(items, count=count, changed=changed, lost=lost),
            times,
            of_mean("task.score.shift", 1.0, lost, _right, apart=True),
        )
    yield (
        "KL 10% above, lognormal 0.5, 200 documents, stopping early",
        0.0,
        partial(divergence, documents=200, world="lognormal 0.5", worse=1.1, noise=0.3),
        max(times // 3, 60),
        [("paired, at any look", True, partial(whenever, "kl.mean", 1.1, 0.0))],
    )
    for tasks, count in ((5, 200), (20, 100)):
        yield (
            f"a group's drop 1%, {tasks} tasks of {count} items",
            0.0,
            lambda rng, k=tasks, n=count: [items(rng, n, 0.04, 0.01) for _ in range(k)],
            max(times // 2, 60),
            [("paired, task by task", True, partial(group, 0.01))],
        )
    for documents in (64, 200):
        yield (
            f"KL p99, {documents} documents each",
            0.0,
            lambda rng, g=documents: (kl_tokens(rng, g, 0.5), kl_tokens(rng, g, 0.5)),
            max(times // 5, 60),
            [
                ("both errors", True, lambda d, r: separate(_p99, 1.0, 0.0, 1, d)),
                ("both errors (FAIL)", False, lambda d, r: separate(_p99, 1.0, 0.0, -1, d)),
                ("stored value as exact", False, lambda d, r: bare(_p99, 1.0, 0.0, 1, d)),
            ],
        )


def _p99(run: Any, confidence: float) -> Interval:
    return quantile_bootstrap(*run, 0.99, confidence, 999, 0)
