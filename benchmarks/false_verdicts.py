"""How often a gate passes when the truth is exactly at its limit, and what stopping early saves.

    python benchmarks/false_verdicts.py [--quick]
    python benchmarks/false_verdicts.py --records RUN   # documents of a run are the population
    python benchmarks/false_verdicts.py --copy RUN      # a rounding-only copy under default.yaml

A gate PASSes when the end of the two-sided 90% interval on the limit's side is inside the limit,
so that a candidate exactly at the limit should pass 5% of the time or less (one-sided 5%). Each
row draws corpora whose true value is known and used as the limit; "no interval" counts as no
PASS, as it does in a gate. Beside the package's interval (*) stand gates people use instead: on
the point estimate, per-token error bars, Wald. What honesty costs stands beside them: the median
distance from the truth to the end against cluster t's, and the power, how often the gate passes a
candidate three standard errors inside the limit.

The second table looks at one NLL-shift gate (limit .02 nats, 1,200 documents) at the five
O'Brien-Fleming looks of `--looks 5`, with the confidence sequence of `--stop-early` after every
tenth document, and by naive peeking. How clear a case is counts in standard errors at all
documents.

Exit 1 when a row with * passes (or, stopping early, fails) more than 5% of the time by over two
simulation errors. Rows without a mark are other people's practice, or harsher than the estimators
vouch for: a gate on so few documents, of such tails, errs as often as the table says.

`--copy RUN` makes RUN first where it is not there: SmolLM2 against itself with another attention
kernel. Its documents and items are resampled 200 times, each judged by gates/default.yaml with the
product's own code; exit 1 where one FAILs.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from resampling import quantities, resampled_runs
from rich.console import Console
from rich.table import Table

from evalharness.stats import (
    FIVE_LOOKS,
    Interval,
    calibration_score_sums,
    ce2_shift,
    clopper_pearson,
    cluster_bootstrap_t,
    cluster_ratio_t,
    cluster_skew_t,
    cluster_sums,
    ece_shift,
    histogram_quantile_bootstrap,
    look_confidence,
    mean_sequence,
    positive_mean_t,
    quantile_bootstrap,
    rate_sequence,
    rms_t,
    tango,
    temperature_shift,
)

CONFIDENCE = 0.90  # two-sided: one-sided 5%
REPLICATES = 999
Z = 1.6449
PROMISED = 0.05
COPIES = 200
WIDTH = 110  # of the tables, also where output is no terminal
UNPRICED = ("point estimate", "per-token iid", "per-token Wald", "Wald")
Gate = tuple[str, bool, Callable[[Any, int], float | None]]  # name, judged, upper end of a draw


def high(interval: Interval) -> float | None:
    return interval.high


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


def score_shift(rows: Any) -> Interval:
    moved = calibration_score_sums(*rows[2:4]) - calibration_score_sums(*rows[:2])
    return cluster_skew_t(*cluster_sums(moved, rows[4]), CONFIDENCE)


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


def at_limit(times: int) -> Iterable[tuple[str, float, Callable[[Any], Any], int, list[Gate]]]:
    """Yield what is gated, its limit, how a draw is made, how many, and the gates on it."""

    def per_token(draw: Any, _: int) -> float:
        # on document totals: a token's variance is about .16
        return float(draw[0].sum() / draw[1].sum() + Z * math.sqrt(0.09 * 1.86 / draw[1].sum()))

    def ratio_t(draw: Any, _: int) -> float | None:
        return high(cluster_ratio_t(*draw, CONFIDENCE))

    def skew_t(draw: Any, _: int) -> float | None:
        return high(cluster_skew_t(*draw, CONFIDENCE))

    def boot_t(draw: Any, seed: int) -> float | None:
        return high(cluster_bootstrap_t(*draw, CONFIDENCE, REPLICATES, seed, log=False))

    for documents in (10, 20, 50, 200):
        yield (
            f"NLL shift, {documents} documents",
            0.02,
            lambda rng, g=documents: nll_totals(rng, g, 0.02),
            4 * times,
            [
                ("skewness-adjusted t", True, skew_t),
                ("cluster t", False, ratio_t),
                *([("bootstrap-t", False, boot_t)] if documents == 50 else []),
                ("point estimate", False, lambda d, r: float(d[0].sum() / d[1].sum())),
                ("per-token iid", False, per_token),
            ],
        )
    for documents in (30, 50, 200):
        yield (
            f"NLL shift, gamma(1/2) documents, {documents}",
            0.0,
            lambda rng, g=documents: (
                (n := lengths(rng, g)) * (rng.gamma(0.5, 0.05, g) - 0.025),
                n,
            ),
            4 * times,
            [("skewness-adjusted t", documents >= 200, skew_t), ("cluster t", False, ratio_t)],
        )
    for documents, effect in ((20, 0.5), (30, 0.5), (50, 0.5), (200, 0.5), (50, 1.0), (200, 1.0)):
        yield (
            f"mean KL, {documents} documents, effect {effect}",
            math.exp((1.5**2 + effect**2) / 2),
            lambda rng, g=documents, e=effect: cluster_sums(*kl_tokens(rng, g, e)),
            times,
            [
                (
                    "bootstrap-t (log), raised",
                    True,
                    lambda d, r: high(positive_mean_t(*d, CONFIDENCE, REPLICATES, r)),
                ),
                ("cluster t", False, ratio_t),
            ],
        )
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
                ("root of skewness-adjusted t", True, lambda d, r: high(rms_t(*d, CONFIDENCE))),
                ("cluster t", False, lambda d, r: math.sqrt(ratio_t(d, r) or 0.0)),
            ],
        )
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
                    ("skewness-adjusted t", True, skew_t),
                    ("cluster t", False, ratio_t),
                    *([("bootstrap-t", False, boot_t)] if documents == 100 else []),
                    (
                        "per-token Wald",
                        False,
                        lambda d, r: float(
                            (p := d[0].sum() / d[1].sum()) + Z * math.sqrt(p * (1 - p) / d[1].sum())
                        ),
                    ),
                ],
            )
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
    yield (
        "task drop 5%, 60 passages of 5 items",
        0.05,
        lambda rng: passages(rng, 60, 0.05),
        4 * times,
        [("skewness-adjusted t", True, skew_t), ("cluster t", False, ratio_t)],
    )
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


def of_records(run: Path, times: int) -> Iterable[Any]:
    """The same rows, with the documents of a run as the population."""
    for name, documents, truth, draw, estimate in quantities(run, CONFIDENCE):
        yield (
            f"{name} (records), {documents} documents",
            truth,
            draw,
            times,
            [("as shipped", name != "ECE shift", lambda d, r, f=estimate: high(f(d, r)))],
        )


def early(times: int) -> Iterable[tuple[str, str, dict[str, float], float, bool]]:
    """Yield truth, method, share of each verdict, share of tokens used, and whether it is ours."""
    documents, limit = 1200, 0.02
    looks = [int(documents * f) for f in FIVE_LOOKS]
    often = range(30, documents + 1, 10)
    methods: dict[str, tuple[Iterable[int], Callable[..., Interval]]] = {
        "all documents": ([documents], lambda s, n, k: cluster_skew_t(s, n, CONFIDENCE)),
        "five looks *": (
            looks,
            lambda s, n, k: cluster_skew_t(s, n, look_confidence(CONFIDENCE, FIVE_LOOKS[: k + 1])),
        ),
        "confidence sequence *": (
            often,
            lambda s, n, k: mean_sequence(s, n, CONFIDENCE, documents // 5),
        ),
        "naive peeking": (often, lambda s, n, k: cluster_ratio_t(s, n, CONFIDENCE)),
    }
    rng = np.random.default_rng(9)
    error = float(
        np.mean(
            [
                cluster_ratio_t(*nll_totals(rng, documents, 0.0), CONFIDENCE).se or 0.0
                for _ in range(50)
            ]
        )
    )
    for away in (-10.0, -9.0, -7.5, -6.0, 0.0, 6.0, 7.5, 9.0, 10.0):
        truth = f"{abs(away):g} errors {'inside' if away < 0 else 'outside'}"
        rng = np.random.default_rng(1)
        # of corpora at the limit many are needed, and of clear ones few
        count = times if away == 0 else max(times // 5, 60)
        corpora = [nll_totals(rng, documents, limit + away * error) for _ in range(count)]
        for name, (at, interval) in methods.items():
            verdicts: Counter[str] = Counter()
            used = 0.0
            for s, n in corpora:
                for k, g in enumerate(at):
                    verdict = decide(interval(s[:g], n[:g], k), limit)
                    if verdict != "INCONCLUSIVE":
                        break
                verdicts[verdict] += 1
                used += n[:g].sum() / n.sum()
            shares = {v: c / count for v, c in verdicts.items()}
            yield truth if away else "at the limit", name, shares, used / count, "*" in name
    rng = np.random.default_rng(2)
    for truth, rate in (("2%", 0.02), ("at the limit, 5%", 0.05), ("9%", 0.09)):
        verdicts, used, count = Counter(), 0.0, max(times // 4, 50)
        for _ in range(count):
            events = (rng.random(1000) < rate).astype(float)
            for g in range(20, 1001, 20):
                verdict = decide(rate_sequence(events[:g], np.ones(g), CONFIDENCE, 1), 0.05)
                if verdict != "INCONCLUSIVE":
                    break
            verdicts[verdict] += 1
            used += g / 1000
        shares = {v: c / count for v, c in verdicts.items()}
        yield f"{truth} of documents", "betting sequence *", shares, used / count, True


def copies(run: Path) -> int:
    """Judge resampled runs of a rounding-only copy under gates/default.yaml."""
    from evalharness.gates import load_policy
    from evalharness.results.judge import judge
    from evalharness.run import assets

    if not (run / "result.json").exists():
        with tempfile.TemporaryDirectory() as folder:
            base = Path(__file__).parent.parent / "suites" / "demo" / "base.yaml"
            copy = Path(folder) / "copy.yaml"
            copy.write_text(f"from: {base}\nname: another-kernel\nmodel: {{attn: eager}}\n")
            command = ["compare", base, copy, "--suite", "demo", "--gates", "default", "--out", run]
            subprocess.run([sys.executable, "-m", "evalharness", *map(str, command)], check=False)
    policy = load_policy(assets.find("gates", "default"))
    whole: Counter[str] = Counter()
    gates: dict[str, Counter[str]] = {}
    for resampled in resampled_runs(run, COPIES):
        _, decision, _ = judge(resampled, policy)
        whole[decision.verdict] += 1
        for gate in decision.gates:
            gates.setdefault(gate.id, Counter())[gate.verdict] += 1
    table = Table(f"{COPIES} resampled runs", "PASS", "INCONCLUSIVE", "FAIL", "ANOMALOUS", box=None)
    for name, counts in {**gates, "the policy": whole}.items():
        table.add_row(name, *(str(counts[str(c.header)]) for c in table.columns[1:]))
    Console(width=WIDTH).print(table)
    return 1 if whole["FAIL"] else 0


def decide(interval: Interval, limit: float) -> str:
    if interval.low is None or interval.high is None:
        return "INCONCLUSIVE"
    return "PASS" if interval.high < limit else "FAIL" if interval.low > limit else "INCONCLUSIVE"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the corpora")
    parser.add_argument("--records", type=Path, metavar="RUN", help="resample a run's documents")
    parser.add_argument("--copy", type=Path, metavar="RUN", help="judge a rounding-only copy")
    arguments = parser.parse_args()
    if arguments.copy:
        return copies(arguments.copy)
    times = 300 if arguments.quick else 1500
    rows = of_records(arguments.records, times) if arguments.records else at_limit(times)
    console, bad = Console(width=WIDTH), []
    table = Table(
        "truth at the limit",
        "gate",
        "corpora",
        "false PASS",
        "width",
        "power",
        "no interval",
        box=None,
    )
    for what, limit, draw, count, gates in rows:
        rng = np.random.default_rng(0)
        ends: dict[str, list[float | None]] = {name: [] for name, *_ in gates}
        for r in range(count):
            drawn = draw(rng)
            for name, _, end in gates:
                ends[name].append(end(drawn, r))
        plain = np.array(ends.get("cluster t", []), float) - limit
        inside = 3 * plain.mean() / Z if plain.size else math.nan  # three standard errors
        for number, (name, judged, _) in enumerate(gates):
            passed = sum(e is not None and e < limit for e in ends[name]) / count
            missing = sum(e is None for e in ends[name]) / count
            over = judged and passed > PROMISED + 2 * simulation_error(count)
            if over:
                bad.append(f"{what}, {name}: {passed:.4f}")
            known = np.array([math.inf if e is None else e for e in ends[name]]) - limit
            costs = ["", ""]
            if plain.size and name not in UNPRICED:
                power = np.mean(known < inside)
                costs = [f"{np.median(known) / np.median(plain):.2f}", f"{power:.2f}"]
            table.add_row(
                "" if number else what,
                name + (" *" if judged else ""),
                str(count),
                f"{passed:.3f}" + (" OVER" if over else ""),
                *costs,
                f"{missing:.2f}" if missing else "",
            )
    console.print(table)
    if not arguments.records:
        bad += stopping(console, times)
    for line in bad:
        console.print(f"errs too often: {line}", style="red")
    return 1 if bad else 0


def stopping(console: Console, times: int) -> list[str]:
    """Print what stopping early saves; return what errs too often at the limit."""
    bad = []
    table = Table("truth", "stopping", "PASS", "FAIL", "tokens used", box=None)
    for truth, method, shares, used, ours in early(max(times // 2, 150)):
        table.add_row(
            truth,
            method,
            f"{shares.get('PASS', 0):.3f}",
            f"{shares.get('FAIL', 0):.3f}",
            f"{used:.0%}",
        )
        if ours and "at the limit" in truth:
            count = max(times // 2, 150) // (4 if "documents" in truth else 1)
            most = PROMISED + 2 * simulation_error(count)
            bad += [
                f"{truth}, {method}: {v} {shares.get(v, 0):.4f}"
                for v in ("PASS", "FAIL")
                if shares.get(v, 0) > most
            ]
    console.print(table)
    return bad


def simulation_error(count: int) -> float:
    return math.sqrt(PROMISED * (1 - PROMISED) / count)


if __name__ == "__main__":
    sys.exit(main())
