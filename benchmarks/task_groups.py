"""Groups of tasks: how often they pass at their limit and with no loss, and a whole policy on them.

57 tasks of 100 to 254 right-or-wrong items (10,090 in all), as MMLU's subjects, gated at -1pp. The
loss is the same in every task, or in six of them; the weights are those of their sizes or equal.
The policy is gates/recommended.yaml on items of the sizes of suites/standard.yaml, judged by the
product's own code: a candidate as 8-bit weights leave it, and one whose MMLU loses what is allowed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from at_limit import CONFIDENCE
from rich.console import Console
from rich.table import Table

from evalharness.gates import load_policy
from evalharness.results.judge import judge
from evalharness.run import assets, records
from evalharness.run.directory import InMemory
from evalharness.stats import Interval, mean_of_parts, no_narrower, tango
from evalharness.testing.records import MANIFEST, Arrow, synthetic

SIZES = np.linspace(100, 254, 57).round().astype(int) + (np.arange(57) < 1)
LIMIT = -0.01
COUNTS = {"arc_challenge": 1172, "hellaswag": 2000}  # of suites/standard.yaml, beside MMLU
MMLU = 14042
ALLOWED = -0.02  # of a task's score in gates/recommended.yaml


@cache
def leaf(up: int, down: int, items: int) -> Interval:
    return tango(up, down, items, CONFIDENCE)


def draw(rng: np.random.Generator, sizes: Any, flips: float, loss: Any) -> tuple[Any, Any]:
    """Right answers gained and lost in each task, where ``flips`` of the items change."""
    down = rng.binomial(sizes, (flips + loss) / 2)
    up = rng.binomial(sizes - down, (flips - loss) / (2 - flips - loss))
    return up, down


def of_group(up: Any, down: Any, sizes: Any, weights: Any) -> Interval:
    """As `task.score.shift` of a group has it."""
    parts = [leaf(*map(int, own)) for own in zip(up, down, sizes, strict=True)]
    n = 1 / float(np.sum(weights**2 / sizes))
    alike = tango(n * float(weights @ (up / sizes)), n * float(weights @ (down / sizes)), n, 0.9)
    return no_narrower(mean_of_parts(parts, weights.tolist()), alike)


def groups(times: int) -> Iterator[tuple[str, str, float, dict[str, list[Interval]]]]:
    """Yield the world, the truth and its value, and the intervals of each method."""
    weights = {"by size": SIZES / SIZES.sum(), "equal": np.full(57, 1 / 57)}
    for (name, w), flips in ((n, f) for n in weights.items() for f in (0.02, 0.05, 0.1)):
        for truth in ("no loss", "at the limit", "at the limit, in six tasks"):
            rng = np.random.default_rng(7)
            loss = np.full(57, 0.0 if truth == "no loss" else -LIMIT)
            if "six" in truth:
                loss = np.where(np.arange(57) % 9 == 4, 1.0, 0.0)
                loss *= -LIMIT / (w @ loss)
            if loss.max() > flips:
                continue
            found: dict[str, list[Interval]] = {"MOVER *": [], "mean of ends": []}
            for _ in range(times):
                up, down = draw(rng, SIZES, flips, loss)
                found["MOVER *"].append(of_group(up, down, SIZES, w))
                parts = [leaf(*map(int, own)) for own in zip(up, down, SIZES, strict=True)]
                found["mean of ends"].append(mean_of_parts(parts, w.tolist(), [0] * 57))
            yield f"{name}, {flips:.0%} flips", truth, -float(w @ loss), found


def suite(rng: np.random.Generator, flips: float, loss: float) -> InMemory:
    """A run of suites/standard.yaml: its tasks, of which MMLU has this loss, and a few texts."""
    sizes = np.floor(SIZES * MMLU / SIZES.sum()).astype(int)
    sizes[0] += MMLU - sizes.sum()
    leaves = {f"mmlu_{k}": int(n) for k, n in enumerate(sizes)}
    tasks = {**{task: (n, 0.0) for task, n in COUNTS.items()}}
    tasks |= {task: (n, loss) for task, n in leaves.items()}
    frames, scores = [], []
    for task, (items, own) in tasks.items():
        up, down = (int(x) for x in draw(rng, np.array(items), flips, np.array(own)))
        sides = np.zeros((2, items))
        sides[0] = np.arange(items) < 0.6 * items
        sides[1] = sides[0]
        sides[1, :down], sides[1, items - up :] = 0.0, 1.0
        frames.append(
            pd.DataFrame({"task": task, "score_ref": sides[0], "score_cand": sides[1]}).assign(
                doc_id=np.arange(items), cluster=[str(i) for i in range(items)]
            )
        )
        means = {"reference": sides[0].mean(), "candidate": sides[1].mean()}
        scores.append({"task": task, "metric": "acc", **means, **FACTS})
    tables = synthetic(documents=120, damage=0.01)
    for name in ("timings", "item_tokens"):
        tables[name] = tables[name].iloc[:0]
    rest = {"metric": "acc", "binary": True, "conf_ref": np.nan, "conf_cand": np.nan}
    items_frame = pd.concat(frames, ignore_index=True).assign(**rest)
    tables["items"] = items_frame.reindex(columns=records.ITEMS.names)
    tables["tasks"] = pd.DataFrame(scores)
    weights = [n / MMLU for n in leaves.values()]
    own_scores = [s for s in scores if s["task"] in leaves]
    means = {
        side: sum(w * s[side] for w, s in zip(weights, own_scores, strict=True))
        for side in ("reference", "candidate")
    }
    group = {"task": "mmlu", "metric": "acc", **means, **FACTS, "items": MMLU}
    tables["groups"] = pd.DataFrame([{**group, "leaves": list(leaves), "weights": weights}])
    return InMemory({**MANIFEST, "candidate": {}}, Arrow(tables))


FACTS = {"higher_is_better": True, "num_fewshot": 5}


def policy_verdicts(times: int, flips: float, loss: float) -> Counter[str]:
    """What gates/recommended.yaml says of runs of suites/standard.yaml."""
    policy = load_policy(assets.find("gates", "recommended"))
    rng = np.random.default_rng(11)
    return Counter(judge(suite(rng, flips, loss), policy)[1].verdict for _ in range(times))


def task_groups(console: Console, times: int) -> list[str]:
    """Print both tables; return what errs too often at its limit, or passes too seldom without."""
    bad = []
    table = Table("57 tasks, -1pp allowed", "truth", "method", "PASS", "width", "held", box=None)
    most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / times)
    for world, truth, value, found in groups(times):
        for method, intervals in found.items():
            ends = np.array([(i.low, i.value, i.high) for i in intervals], float)
            passed = float(np.mean(ends[:, 0] >= LIMIT))
            held = np.mean((ends[:, 0] <= value) & (value <= ends[:, 2]))
            width = 100 * np.mean(ends[:, 1] - ends[:, 0])
            table.add_row(world, truth, method, f"{passed:.3f}", f"{width:.2f}pp", f"{held:.3f}")
            if "*" in method and truth != "no loss" and passed > most:
                bad.append(f"{world}, {truth}, {method}: {passed:.4f}")
    console.print(table)
    count = max(times // 10, 30)
    table = Table("recommended on standard", "runs", "PASS", "INCONCLUSIVE", "FAIL", box=None)
    for truth, loss in (("no loss, 2% flips", 0.0), ("MMLU at its limit, 4% flips", -ALLOWED)):
        counts = policy_verdicts(count, 0.04 if loss else 0.02, loss)
        row = [str(counts[v]) for v in ("PASS", "INCONCLUSIVE", "FAIL")]
        table.add_row(truth, str(count), *row)
        passed = counts["PASS"] / count
        if loss and passed > 0.05 + 2 * math.sqrt(0.05 * 0.95 / count):
            bad.append(f"recommended, {truth}: {passed:.3f}")
        if not loss and passed < 0.9:
            bad.append(f"recommended, {truth}: only {passed:.3f} pass")
    console.print(table)
    return bad
