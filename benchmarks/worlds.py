"""False PASS and power in worlds that are unkind to means, whichever way a PASS is reached.

    python benchmarks/worlds.py [--quick]

The truth is exactly at the limit, so that 5% may pass; the power is that of a limit three true
standard errors away. Documents are lognormal (σ = .5 and 1), Pareto(3), gamma(½), or worse where
they are short; items lose all of their score, few of them or none in a sample; tokens flip in some
documents and not in others; a passage is lost whole. Early stopping looks at every tenth document
from 30 on. Exit 1 where a row marked * errs by over two simulation errors more than it may.

Unmarked are what no interval of a mean can do: documents of infinite skewness (Pareto(3)), and 2%
of documents ten times worse than the rest, which a sample of 20 mostly does not hold.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from evalharness.stats import (
    Interval,
    bounded_mean_t,
    cluster_skew_t,
    positive_mean_t,
    rate_t,
    sequence_of,
)

CONFIDENCE, PROMISED = 0.90, 0.05
Draw = Callable[[np.random.Generator, int], tuple[Any, Any]]
Estimator = Callable[..., Interval]


def _lengths(rng: np.random.Generator, size: int) -> Any:
    return np.clip(rng.lognormal(6.0, 0.55, size), 16, None).round()


EFFECTS: dict[str, Callable[[np.random.Generator, Any], Any]] = {
    "lognormal, σ .5": lambda rng, n: rng.lognormal(-0.125, 0.5, n.size),
    "lognormal, σ 1": lambda rng, n: rng.lognormal(-0.5, 1, n.size),
    "gamma(½)": lambda rng, n: rng.gamma(0.5, 2, n.size),
    "short ones worse": lambda rng, n: rng.lognormal(0, 0.5, n.size) * (n / 400) ** -0.5,
    "Pareto(3)": lambda rng, n: rng.random(n.size) ** (-1 / 3) / 1.5,
    "2% ten times worse": lambda rng, n: (
        np.where(rng.random(n.size) < 0.02, 10, 1) * rng.lognormal(0, 0.3, n.size)
    ),
}
HARSH = ("Pareto(3)", "2% ten times worse")


def positive(effect: Callable[..., Any]) -> Draw:
    """KL of documents: lognormal tokens (σ = 1.5) about the document's own mean."""

    def draw(rng: np.random.Generator, size: int) -> tuple[Any, Any]:
        n = _lengths(rng, size)
        noise = rng.normal(0, 1, size) * np.sqrt((math.exp(2.25) - 1) / n)
        return n * effect(rng, n) * (1 + np.clip(noise, -0.9, None)), n

    return draw


def signed(effect: Callable[..., Any]) -> Draw:
    """Loss shifts of documents, tokens with a standard deviation of 2."""

    def draw(rng: np.random.Generator, size: int) -> tuple[Any, Any]:
        n = _lengths(rng, size)
        return n * (effect(rng, n) + 2 * rng.normal(0, 1, size) / np.sqrt(n)), n

    return draw


def lost_items(rate: float) -> Draw:
    """Items that lose all of their score."""
    return lambda rng, size: (1.0 * (rng.random(size) < rate), np.ones(size))


def lost_passages(rate: float) -> Draw:
    """One to eight items a passage, which is lost whole."""

    def draw(rng: np.random.Generator, size: int) -> tuple[Any, Any]:
        n = rng.integers(1, 9, size).astype(float)
        return (rng.random(size) < rate) * n, n

    return draw


def flips(rate: float) -> Draw:
    """Tokens that flip, at a rate that differs between documents."""

    def draw(rng: np.random.Generator, size: int) -> tuple[Any, Any]:
        n = _lengths(rng, size)
        return rng.binomial(n.astype(int), np.minimum(1, rng.gamma(0.5, 2 * rate, size))), n

    return draw


def lost(sums: Any, counts: Any, confidence: float) -> Interval:
    """The interval of a score's loss, between −1 and 1."""
    return bounded_mean_t(sums, counts, confidence, -1.0, 1.0)


def rows() -> Iterator[tuple[str, int, Draw, Estimator, bool]]:
    """What is drawn, of how many, how, its estimator, and whether it is judged."""
    for name, effect in EFFECTS.items():
        for size in (20, 50, 200):
            judged = name not in HARSH
            yield f"KL, {name}", size, positive(effect), positive_mean_t, judged
            yield f"NLL shift, {name}", size, signed(effect), cluster_skew_t, judged
    for rate in (0.002, 0.01, 0.02, 0.05):
        for size in (10, 30, 100, 200, 500):
            yield f"score lost on {rate:.1%} of items", size, lost_items(rate), lost, True
            yield f"passages, {rate:.1%} lost", size, lost_passages(rate), lost, True
    for rate in (0.0001, 0.001, 0.02):
        for size in (20, 50, 200):
            yield f"flips of {rate:.2%} of tokens", size, flips(rate), rate_t, True


def truth(draw: Draw) -> float:
    """The mean over very many documents."""
    rng = np.random.default_rng(99)
    sums, counts = zip(*(draw(rng, 20_000) for _ in range(100)), strict=True)
    return float(np.sum(sums) / np.sum(counts))


def high(found: Interval) -> float:
    return math.inf if found.high is None else found.high


def fixed(draw: Draw, size: int, estimator: Estimator, times: int) -> tuple[float, float]:
    """The share of samples that pass at the limit, and at one three errors away."""
    rng, limit = np.random.default_rng(0), truth(draw)
    samples = [draw(rng, size) for _ in range(times)]
    error = float(np.std([s.sum() / n.sum() for s, n in samples]))
    ends = np.array([high(estimator(s, n, CONFIDENCE)) for s, n in samples])
    return float(np.mean(ends < limit)), float(np.mean(ends < limit + 3 * error))


def stopped(draw: Draw, estimator: Estimator, times: int, most: int = 300) -> float:
    """The share of samples that pass at the limit at any look of `--stop-early`."""
    rng, limit, passed = np.random.default_rng(0), truth(draw), 0
    for _ in range(times):
        s, n = draw(rng, most)
        passed += any(
            high(sequence_of(estimator, s[:g], n[:g], CONFIDENCE, most // 5)) < limit
            for g in range(30, most + 1, 10)
        )
    return passed / times


def main() -> int:
    """Print the table; 1 where a judged row errs too often."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the samples")
    times = 300 if parser.parse_args().quick else 1500
    table, bad = Table("truth at the limit", "of", "false PASS", "power", box=None), []

    def add(name: str, of: str, passed: float, power: str, judged: bool, count: int) -> None:
        over = passed > PROMISED + 2 * math.sqrt(PROMISED * (1 - PROMISED) / count)
        if over and judged:
            bad.append(f"{name}, {of}: {passed:.3f}")
        mark = (" *" if judged else "") + (" OVER" if over else "")
        table.add_row(name, of, f"{passed:.3f}{mark}", power)

    for name, size, draw, estimator, judged in rows():
        passed, power = fixed(draw, size, estimator, times)
        add(name, str(size), passed, f"{power:.2f}", judged, times)
    for kind, make, estimator in (
        ("KL", positive, positive_mean_t),
        ("NLL shift", signed, cluster_skew_t),
    ):
        for name, effect in EFFECTS.items():
            passed = stopped(make(effect), estimator, times // 3)
            add(f"--stop-early, {kind}, {name}", "≤ 300", passed, "", name not in HARSH, times // 3)
    console = Console(width=110)
    console.print(table)
    for line in bad:
        console.print(f"errs too often: {line}", style="red")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
