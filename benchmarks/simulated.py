"""Documents, tokens, items, layers and times drawn from populations whose true value is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from evalharness.probes.decoding import turns


def lengths(rng: np.random.Generator, documents: int, mean: float = 1000) -> Any:
    n = rng.lognormal(np.log(mean) - 0.15, 0.55, documents)
    return np.clip(n, 16, None).astype(int)


def nll_totals(rng: np.random.Generator, documents: int, truth: float) -> tuple[Any, Any]:
    """Document totals of an NLL shift: skewed and heavy-tailed document effects, sd about .07."""
    n = lengths(rng, documents)
    effect = 0.035 * (rng.gamma(1.0, 1.0, documents) - 1) + 0.045 * rng.standard_t(5, documents)
    return n * (truth + effect) + rng.standard_normal(documents) * np.sqrt(1.86 * n) * 0.3, n


def kl_tokens(rng: np.random.Generator, documents: int, effect: float) -> tuple[Any, Any]:
    """Lognormal KL of documents of 300 tokens, log-scale sd 1.5 and ``effect``."""
    n = lengths(rng, documents, 300)
    codes = np.repeat(np.arange(documents), n)
    logs = 1.5 * rng.standard_normal(codes.size) + rng.normal(0, effect, documents)[codes]
    return np.exp(logs), codes


def predictions(rng: np.random.Generator, documents: int, rows: int, sharpen: float) -> Any:
    """Both sides' confidences and correctness; the candidate's logits are sharper and noisier."""
    codes = np.repeat(np.arange(documents), rows)
    logits = rng.normal(0.8, 1.5, codes.size)
    chance = 1 / (1 + np.exp(-(logits + rng.normal(0, 0.3, documents)[codes])))
    right = rng.random(codes.size) < chance
    again = np.where(rng.random(codes.size) < 0.8, right, rng.random(codes.size) < chance)
    blurred = sharpen * (logits + rng.normal(0, 0.3, codes.size))
    return 1 / (1 + np.exp(-logits)), right, 1 / (1 + np.exp(-blurred)), again, codes


def layer_histograms(rng: np.random.Generator, documents: int, effect: float) -> Any:
    """Relative errors of a module: 512 tokens a document in bins of the package's width."""
    tokens = np.exp(rng.normal(0, 0.4, (documents, 512)) + rng.normal(0, effect, (documents, 1)))
    edges = np.append(0.0, 2.0 ** np.arange(-8, 8, 1 / 32))
    bins = np.clip(np.searchsorted(edges, tokens, side="right") - 1, 0, edges.size - 2)
    cells = np.arange(documents)[:, None] * (edges.size - 1) + bins
    counts = np.bincount(cells.ravel(), minlength=documents * (edges.size - 1))
    return counts.reshape(documents, -1), edges


def passages(rng: np.random.Generator, clusters: int, change: float) -> Any:
    """A drop of ``change`` over items that share passages in fives: sums and counts."""
    n = np.full(clusters, 5)
    worse = rng.beta(0.5 * (0.05 + change), 0.5 * (0.95 - change), clusters)
    return rng.binomial(n, worse) - rng.binomial(n, 0.05), n


def timings(rng: np.random.Generator, processes: int, ratio: float, batches: int = 21) -> Any:
    """Seconds (P, B) of both sides on a machine that drifts, the candidate ``ratio`` as slow.

    Each side of a process is off by 1% of its own, in one of twenty by 5% more, and what was loaded
    first is half a percent faster. While it is timed the machine slows by up to a fifth, wanders by
    .2% a turn, and now and then something else takes the core. Turns are in the order of
    `probes.decoding.turns`.
    """
    own = np.exp(0.01 * rng.standard_normal((processes, 2)))
    own *= np.where(rng.random((processes, 2)) < 0.05, 1.05, 1.0)
    own[np.arange(processes), np.arange(processes) % 2] /= 1.005
    own[:, 1] *= ratio
    count = 4 * batches
    bent = np.linspace(0, 1, count) ** rng.choice([0.5, 1, 2], (processes, 1))
    drift = rng.uniform(0, 0.2, (processes, 1)) * bent
    drift += 0.002 * rng.standard_normal((processes, count)).cumsum(1)
    taken = np.where(rng.random(drift.shape) < 0.05, rng.exponential(0.1, drift.shape), 0)
    seconds = np.exp(drift + 0.005 * rng.standard_normal(drift.shape)) * (1 + taken)
    side = np.array(
        [
            [[name == "cand" for name in turns(b, p + 1)] for b in range(batches)]
            for p in range(processes)
        ]
    ).reshape(processes, count)
    by_turn = (seconds * np.where(side, own[:, 1:], own[:, :1])).reshape(processes, batches, 4)
    of_cand = side.reshape(processes, batches, 4)
    return (by_turn * of_cand).sum(2), (by_turn * ~of_cand).sum(2)
