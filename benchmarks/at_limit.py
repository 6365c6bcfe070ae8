"""The gates of `false_verdicts.py`, each on draws whose true value is exactly at its limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from simulated import (
    kl_tokens,
    layer_histograms,
    lengths,
    nll_totals,
    passages,
    predictions,
    timings,
)

from evalharness.stats import (
    Interval,
    calibration_score_sums,
    ce2_shift,
    clopper_pearson,
    cluster_ratio_t,
    cluster_skew_t,
    cluster_sums,
    ece_shift,
    histogram_quantile_bootstrap,
    positive_mean_t,
    process_ratio_t,
    quantile_bootstrap,
    rate_t,
    rms_t,
    tango,
    temperature_shift,
)

CONFIDENCE = 0.90  # two-sided: one-sided 5%
REPLICATES = 999
Z = 1.6449
Gate = tuple[str, bool, Callable[[Any, int], float | None]]  # name, judged, upper end of a draw
# What is gated, its limit, how a draw is made, how many, and the gates on it.
Case = tuple[str, float, Callable[[Any], Any], int, list[Gate]]


def high(interval: Interval) -> float | None:
    return interval.high


def score_shift(rows: Any) -> Interval:
    moved = calibration_score_sums(*rows[2:4]) - calibration_score_sums(*rows[:2])
    return cluster_skew_t(*cluster_sums(moved, rows[4]), CONFIDENCE)


def per_token(draw: Any, _: int) -> float:
    # on document totals: a token's variance is about .16
    return float(draw[0].sum() / draw[1].sum() + Z * math.sqrt(0.09 * 1.86 / draw[1].sum()))


def ratio_t(draw: Any, _: int) -> float | None:
    return high(cluster_ratio_t(*draw, CONFIDENCE))


def skew_t(draw: Any, _: int) -> float | None:
    return high(cluster_skew_t(*draw, CONFIDENCE))


def nll(times: int) -> Iterator[Case]:
    for documents in (10, 20, 50, 200):
        yield (
            f"NLL shift, {documents} documents",
            0.02,
            lambda rng, g=documents: nll_totals(rng, g, 0.02),
            4 * times,
            [
                ("skewness-adjusted t", True, skew_t),
                ("cluster t", False, ratio_t),
                ("point estimate", False, lambda d, r: float(d[0].sum() / d[1].sum())),
                ("per-token iid", False, per_token),
            ],
        )


def nll_of_skewed_documents(times: int) -> Iterator[Case]:
    for documents in (30, 50, 200):
        yield (
            f"NLL shift, gamma(1/2) documents, {documents}",
            0.0,
            lambda rng, g=documents: (
                (n := lengths(rng, g)) * (rng.gamma(0.5, 0.05, g) - 0.025),
                n,
            ),
            4 * times,
            [("skewness-adjusted t", True, skew_t), ("cluster t", False, ratio_t)],
        )


def mean_kl(times: int) -> Iterator[Case]:
    for documents, effect in ((20, 0.5), (30, 0.5), (50, 0.5), (200, 0.5), (50, 1.0), (200, 1.0)):
        yield (
            f"mean KL, {documents} documents, effect {effect}",
            math.exp((1.5**2 + effect**2) / 2),
            lambda rng, g=documents, e=effect: cluster_sums(*kl_tokens(rng, g, e)),
            times,
            [
                ("log-scale t", True, lambda d, r: high(positive_mean_t(*d, CONFIDENCE))),
                ("cluster t", False, ratio_t),
            ],
        )


def kl_quantile(times: int) -> Iterator[Case]:
    for documents, effect in ((66, 0.3), (66, 0.8), (200, 0.3), (200, 0.8)):
        yield (
            f"KL p99, {documents} documents, effect {effect}",
            math.exp(2.32635 * math.hypot(1.5, effect)),
            lambda rng, g=documents, e=effect: kl_tokens(rng, g, e),
            max(times // 3, 100),
            [
                (
                    "share inversion",
                    True,
                    lambda d, r: high(quantile_bootstrap(*d, 0.99, CONFIDENCE, REPLICATES, r)),
                ),
                ("point estimate", False, lambda d, r: float(np.quantile(d[0], 0.99))),
            ],
        )


def layer_error(times: int) -> Iterator[Case]:
    for documents in (12, 40):
        yield (
            f"layer error, {documents} documents",
            1.0,
            lambda rng, g=documents: layer_histograms(rng, g, 0.2),
            max(times // 3, 100),
            [
                (
                    "share inversion",
                    True,
                    lambda d, r: high(
                        histogram_quantile_bootstrap(*d, 0.5, CONFIDENCE, REPLICATES, r)
                    ),
                )
            ],
        )


def rms_of_probability(times: int) -> Iterator[Case]:
    for documents in (50, 200):
        yield (
            f"RMS shift of probability, {documents} documents",
            math.sqrt(1.5),
            lambda rng, g=documents: (
                (n := lengths(rng, g)) * rng.gamma(1.5, 1.0, g) * (1 + rng.normal(0, 0.05, g)),
                n,
            ),
            2 * times,
            [
                ("root of log-scale t", True, lambda d, r: high(rms_t(*d, CONFIDENCE))),
                ("cluster t", False, lambda d, r: math.sqrt(ratio_t(d, r) or 0.0)),
            ],
        )


def token_flips(times: int) -> Iterator[Case]:
    for name, a, b in (("alike", 6.0, 114.0), ("unlike", 1.5, 28.5)):
        for documents in (50, 100):

            def flips(
                rng: np.random.Generator, a: float = a, b: float = b, g: int = documents
            ) -> tuple[Any, Any]:
                n = lengths(rng, g)
                return rng.binomial(n, rng.beta(a, b, g)), n

            yield (
                f"token flips 5%, {documents} documents, {name}",
                0.05,
                flips,
                4 * times,
                [
                    ("t of a rate", True, lambda d, r: high(rate_t(*d, CONFIDENCE))),
                    ("cluster t", False, ratio_t),
                    (
                        "per-token Wald",
                        False,
                        lambda d, r: float(
                            (p := d[0].sum() / d[1].sum()) + Z * math.sqrt(p * (1 - p) / d[1].sum())
                        ),
                    ),
                ],
            )


def task_drop(times: int) -> Iterator[Case]:
    for n, changed, drop in ((100, 0.08, 0.05), (400, 0.06, 0.02), (2000, 0.05, 0.01)):
        # the drop is gated from above: right -> wrong less wrong -> right
        yield (
            f"task drop {drop:.0%}, {n} items, {changed:.0%} flips",
            drop,
            lambda rng, n=n, f=changed, m=drop: (
                *rng.multinomial(n, [(f + m) / 2, (f - m) / 2, 1 - f])[:2].tolist(),
                n,
            ),
            4 * times,
            [
                ("Tango", True, lambda d, r: high(tango(*d, CONFIDENCE))),
                ("point estimate", False, lambda d, r: (d[0] - d[1]) / d[2]),
                (
                    "Wald",
                    False,
                    lambda d, r: (
                        (d[0] - d[1]) / d[2]
                        + Z * math.sqrt(max(d[0] + d[1] - (d[0] - d[1]) ** 2 / d[2], 0)) / d[2]
                    ),
                ),
            ],
        )


def task_drop_by_passage(times: int) -> Iterator[Case]:
    yield (
        "task drop 5%, 60 passages of 5 items",
        0.05,
        lambda rng: passages(rng, 60, 0.05),
        4 * times,
        [("skewness-adjusted t", True, skew_t), ("cluster t", False, ratio_t)],
    )


def beyond_a_bound(times: int) -> Iterator[Case]:
    for n, share in ((50, 0.1), (200, 0.02)):
        yield (
            f"documents beyond a bound {share:.0%}, {n} documents",
            share,
            lambda rng, n=n, p=share: (int(rng.binomial(n, p)), n),
            4 * times,
            [
                ("Clopper-Pearson", True, lambda d, r: high(clopper_pearson(*d, CONFIDENCE))),
                (
                    "Wald",
                    False,
                    lambda d, r: d[0] / d[1] + Z * math.sqrt(d[0] * (d[1] - d[0]) / d[1] ** 3),
                ),
            ],
        )


def calibration(times: int) -> Iterator[Case]:
    large = [predictions(np.random.default_rng(90 + i), 3000, 400, 1.4) for i in range(6)]
    for documents, rows in ((1000, 1), (100, 100)):
        for name, estimate in (
            ("ce2", lambda d: ce2_shift(*d, CONFIDENCE)),
            ("calibration score", score_shift),
            ("temperature", lambda d: temperature_shift(*d, CONFIDENCE)),
            ("ECE", lambda d: ece_shift(*d, CONFIDENCE, 199)),
        ):
            limit = float(np.mean([estimate(rows).value for rows in large]))
            yield (
                f"{name} shift, {documents} documents of {rows}",
                limit,
                lambda rng, g=documents, k=rows: predictions(rng, g, k, 1.4),
                max(times // 2, 100),
                [
                    (
                        "bootstrap (shown only)" if name == "ECE" else "skewness-adjusted t",
                        name != "ECE",
                        lambda d, r, f=estimate: high(f(d)),
                    )
                ],
            )


def latency(times: int) -> Iterator[Case]:
    for processes in (3, 5, 10):

        def by_process(draw: Any, r: int) -> float | None:
            cand, ref = (seconds.sum(1) for seconds in draw)
            return high(process_ratio_t(cand, ref, CONFIDENCE))

        def by_batch(draw: Any, r: int) -> float | None:
            cand, ref = (np.rint(1e9 * seconds[0]) for seconds in draw)
            return high(cluster_skew_t(cand, ref, CONFIDENCE))

        yield (
            f"latency ratio 1, {processes} processes",
            1.0,
            lambda rng, p=processes: timings(rng, p, 1.0),
            times,
            [
                ("t over processes", True, by_process),
                ("batches of one process", False, by_batch),
                ("point estimate", False, lambda d, r: float(d[0].sum() / d[1].sum())),
            ],
        )


FAMILIES = (
    nll,
    nll_of_skewed_documents,
    mean_kl,
    kl_quantile,
    layer_error,
    rms_of_probability,
    token_flips,
    task_drop,
    task_drop_by_passage,
    beyond_a_bound,
    calibration,
    latency,
)


def at_limit(times: int) -> Iterator[Case]:
    """Every case, of families in the order above; each is drawn ``times`` times or a multiple."""
    return chain.from_iterable(family(times) for family in FAMILIES)
