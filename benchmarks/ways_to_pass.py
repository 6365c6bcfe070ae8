"""False PASS where a policy has several ways to pass: trade-offs, and several candidates.

Rows of `false_verdicts.py`. Everything is exactly at its limit and decided by the product's own
code; a row counts any PASS. Beside it stands what a team gets that gives every way its own 5%.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from at_limit import CONFIDENCE, Case
from worlds import EFFECTS, Draw, high, positive, signed, truth

from evalharness.gates import Policy, decide, policy_from, stricter
from evalharness.gates.family import holm
from evalharness.metrics import REGISTRY, Evidence
from evalharness.run.directory import InMemory
from evalharness.spec.estimate import Estimate
from evalharness.spec.yamlfile import parse_yaml
from evalharness.stats import Interval, cluster_skew_t, positive_mean_t

CANDIDATES = 10
METRICS: dict[str, tuple[Callable[..., Draw], Callable[..., Interval]]] = {
    "nll.shift": (signed, cluster_skew_t),
    "kl.mean": (positive, positive_mean_t),
    "kl.reverse.mean": (positive, positive_mean_t),
}


@dataclass
class Sampled:
    """The estimates of one candidate, each metric from its own (sums, counts) by document."""

    samples: dict[str, tuple[Any, Any]]

    def __post_init__(self) -> None:
        self.evidence = Evidence(InMemory({}, {}))

    def scopes(self, metric: str) -> list[dict[str, str]]:
        return [{}] if metric in self.samples else []

    def leaves(self, scope: dict[str, str]) -> frozenset[str]:
        return frozenset()

    def noise_unknown(self, metric: str, scope: dict[str, str]) -> None:
        return None

    def estimate(self, metric: str, scope: dict[str, str], confidence: float) -> Estimate:
        found = METRICS[metric][1](*self.samples[metric], confidence)
        return Estimate(
            id=metric,
            value=found.value,
            low=found.low,
            high=found.high,
            se=found.se,
            confidence=confidence,
            n=found.n,
            clusters=found.clusters,
            unit=REGISTRY[metric].unit,
            direction="lower",
        )

    at_once = estimate


def _policy(gate: str) -> Policy:
    return policy_from(parse_yaml(f"gates: [{{{gate}}}]", Path("gates/at-limit.yaml")))


def _passes(policy: Policy, drawn: Sampled) -> bool:
    return decide(policy, drawn).verdict == "PASS"  # type: ignore[arg-type]


def _ends(metrics: list[str], limits: dict[str, float], drawn: Sampled) -> bool:
    """Whether any of ``metrics`` is inside its limit at 95% by itself."""
    return any(high(METRICS[m][1](*drawn.samples[m], CONFIDENCE)) < limits[m] for m in metrics)


def _end(passed: bool) -> float:
    """As an end against a limit of 0, for the table."""
    return -1.0 if passed else 1.0


def trade_offs(times: int) -> Iterator[Case]:
    """A limit that is kept, or loosened by one of its conditions: each at its own limit."""
    for world in ("lognormal, σ .5", "gamma(½)"):
        draws = {m: make(EFFECTS[world]) for m, (make, _) in METRICS.items()}
        limits = {m: truth(draw) for m, draw in draws.items()}
        for conditions in (1, 2):
            names = list(METRICS)[: conditions + 1]
            bought = ", ".join(f"{{metric: {m}, max: {limits[m]!r}}}" for m in names[1:])
            policy = _policy(
                f"metric: {names[0]}, max: {limits[names[0]]!r}, "
                f"unless: {{max: 1.0e+6, any: [{bought}]}}"
            )
            for size in (20, 50, 200):

                def draw(
                    rng: np.random.Generator, of: Any = draws, n: int = size, k: Any = names
                ) -> Sampled:
                    return Sampled({m: of[m](rng, n) for m in k})

                yield (
                    f"trade-off, {conditions + 1} ways, {world}, {size} documents",
                    0.0,
                    draw,
                    times,
                    [
                        ("ways share the error", True, lambda d, r, p=policy: _end(_passes(p, d))),
                        (
                            "5% each",
                            False,
                            lambda d, r, k=names, at=limits: _end(_ends(k, at, d)),
                        ),
                    ],
                )


def candidates(times: int) -> Iterator[Case]:
    """Ten candidates, measured on documents that each has of its own or that all share."""
    for world in ("lognormal, σ .5", "gamma(½)"):
        draw = positive(EFFECTS[world])
        limit = truth(draw)
        policy = _policy(f"metric: kl.mean, max: {limit!r}")
        for shared in (False, True):
            for size in (50, 200):

                def ten(
                    rng: np.random.Generator, of: Draw = draw, n: int = size, same: bool = shared
                ) -> list[Sampled]:
                    sums, counts = of(rng, n)
                    found = []
                    for _ in range(CANDIDATES):
                        if not same:
                            sums, counts = of(rng, n)
                        # On the same documents errors go together but for a fifth.
                        own = sums * rng.lognormal(-0.02, 0.2, n) if same else sums
                        found.append(Sampled({"kl.mean": (own, counts)}))
                    return found

                yield (
                    f"any of {CANDIDATES} candidates, {world}, {size} "
                    f"{'shared documents' if shared else 'documents each'}",
                    0.0,
                    ten,
                    max(times // 5, 100),
                    [
                        ("Holm over candidates", True, lambda d, r, p=policy: _end(_any(p, d))),
                        (
                            "5% each",
                            False,
                            lambda d, r, p=policy: _end(any(_passes(p, one) for one in d)),
                        ),
                    ],
                )


def _any(policy: Policy, drawn: list[Sampled]) -> bool:
    """Whether any candidate passes, corrected for how many there are."""
    able = [i for i, one in enumerate(drawn) if _passes(policy, one)]

    def passes(index: int, tests: int) -> bool:
        return _passes(stricter(policy, tests), drawn[index])

    tests = holm(len(drawn), able, passes)
    return any(passes(i, tests[i]) for i in able)


def ways_to_pass(times: int) -> Iterator[Case]:
    """Every case of both kinds."""
    yield from trade_offs(times)
    yield from candidates(times)
