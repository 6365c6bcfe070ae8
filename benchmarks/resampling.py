"""The documents and items of a finished run as a population to draw from, for the benchmarks.

Drawing documents with replacement gives corpora whose truth is known: the value over the run.
Tokens within a document stay as they were measured, with all their dependence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from evalharness.metrics import Evidence, calibration
from evalharness.metrics.layers import EDGES
from evalharness.run.directory import InMemory, Run
from evalharness.stats import (
    Interval,
    calibration_score_sums,
    ce2_shift,
    clopper_pearson,
    cluster_skew_t,
    cluster_sums,
    ece_shift,
    histogram_quantile,
    histogram_quantile_bootstrap,
    positive_mean_t,
    quantile_bootstrap,
    rms_t,
    tango,
    temperature_shift,
)
from evalharness.stats.reliability import BINS, bin_codes

REPLICATES = 999
BOUND = "4"  # logits
Draw = Callable[[np.random.Generator], Any]
Quantity = tuple[str, int, float, Draw, Callable[[Any, int], Interval]]


def quantities(path: Path, confidence: float) -> Iterator[Quantity]:
    """Yield name, documents, truth, how a corpus is drawn, and the product's interval of it."""
    evidence = Evidence(Run.open(path))
    codes = np.unique(evidence.column("doc"), return_inverse=True)[1]
    order, n = np.argsort(codes, kind="stable"), np.bincount(codes)
    starts, g = np.cumsum(n) - n, n.size

    def rows(rng: np.random.Generator) -> tuple[Any, Any]:
        """Token rows of g documents drawn with replacement, and their new codes."""
        picked = rng.integers(0, g, g)
        found = [order[starts[d] : starts[d] + n[d]] for d in picked]
        return np.concatenate(found), np.repeat(np.arange(g), n[picked])

    def totals(values: Any) -> tuple[float, Draw]:
        s = np.bincount(codes, values)

        def draw(rng: np.random.Generator) -> Any:
            picked = rng.integers(0, g, g)
            return s[picked], n[picked]

        return float(s.sum() / n.sum()), draw

    col = evidence.column
    shift = col("nll_cand") - col("nll_ref")
    flips = (col("argmax_ref") != col("argmax_cand")).astype(float)
    moved = np.exp(-col("nll_cand")) - np.exp(-col("nll_ref"))
    both = calibration.predictions(evidence, {})
    assert not isinstance(both, str)
    sides = both.both[:4]
    score = calibration_score_sums(*sides[2:]) - calibration_score_sums(*sides[:2])
    for name, values in (("NLL shift", shift), ("flips", flips), ("calibration score", score)):
        truth, draw = totals(values)
        yield name, g, truth, draw, lambda d, r: cluster_skew_t(*d, confidence)
    truth, draw = totals(col("kl"))
    yield "mean KL", g, truth, draw, lambda d, r: positive_mean_t(*d, confidence)
    truth, draw = totals(moved**2)
    yield "RMS shift of probability", g, truth**0.5, draw, lambda d, r: rms_t(*d, confidence)
    kl = col("kl")
    for q in (0.5, 0.99, 0.999):
        yield (
            f"KL quantile {q:g}",
            g,
            float(np.quantile(kl, q)),
            lambda rng: (kl[(found := rows(rng))[0]], found[1]),
            lambda d, r, q=q: quantile_bootstrap(*d, q, confidence, REPLICATES, r),
        )
    largest = np.zeros(g)
    np.maximum.at(largest, codes, col("half_range"))
    beyond = largest > np.median(largest) * 1.2
    yield (
        "documents beyond a bound",
        g,
        float(beyond.mean()),
        lambda rng: int(beyond[rng.integers(0, g, g)].sum()),
        lambda d, r: clopper_pearson(d, g, confidence),
    )

    def drawn_sides(rng: np.random.Generator) -> Any:
        picked, new = rows(rng)
        return *(s[picked] for s in sides), new

    yield (
        "temperature shift",
        g,
        float(temperature_shift(*sides, codes, confidence).value or 0),
        drawn_sides,
        lambda d, r: temperature_shift(*d, confidence),
    )
    yield (
        "ce2 shift",
        g,
        _plug_in(*sides[2:]) - _plug_in(*sides[:2]),
        drawn_sides,
        lambda d, r: ce2_shift(*d, confidence),
    )
    yield (
        "ECE shift",
        g,
        float(ece_shift(*sides, codes, confidence, 199).value or 0),
        drawn_sides,
        lambda d, r: ece_shift(*d, confidence, 199, r),
    )
    layers = [key for key in evidence.layers if key[0] == "total"]
    if layers:
        counts = evidence.layers[layers[-1]].histogram("rel")
        counts = counts[counts.sum(axis=1) > 0]
        k = len(counts)
        yield (
            "layer error (median)",
            k,
            histogram_quantile(counts.sum(axis=0), EDGES, 0.5),
            lambda rng: counts[rng.integers(0, k, k)],
            lambda d, r: histogram_quantile_bootstrap(d, EDGES, 0.5, confidence, REPLICATES, r),
        )
    items = evidence.items
    if len(items):
        first = items[(items["task"] == items["task"][0]) & (items["metric"] == items["metric"][0])]
        change = (first["score_cand"] - first["score_ref"]).to_numpy()
        m = len(change)
        yield (
            "task score shift",
            m,
            float(change.mean()),
            lambda rng: change[rng.integers(0, m, m)],
            lambda d, r: tango(int((d > 0).sum()), int((d < 0).sum()), m, confidence),
        )
        yield (
            "task flips",
            m,
            float((change != 0).mean()),
            lambda rng: int((change[rng.integers(0, m, m)] != 0).sum()),
            lambda d, r: clopper_pearson(d, m, confidence),
        )


def _plug_in(conf: Any, correct: Any) -> float:
    """Squared calibration error of a population, which has no chance part to take out."""
    gap, size = cluster_sums(correct - conf, bin_codes(conf, BINS))
    return float(np.sum(gap**2 / np.maximum(size, 1)) / size.sum())


def resampled_runs(path: Path, times: int) -> Iterator[Any]:
    """Yield the run with its documents and task items drawn with replacement."""
    run = Run.open(path)
    kept = {name: run.table(name) for name in ("tokens", "documents", "items", "tasks", "layers")}
    doc = kept["documents"]["doc"].to_numpy()
    by = {
        name: {d: np.flatnonzero(kept[name]["doc"].to_numpy() == d) for d in doc}
        for name in ("tokens", "documents", "layers")
    }
    keys = kept["items"].select(["task", "doc_id"]).to_pandas()
    items = {
        task: {d: rows.index.to_numpy() for d, rows in own.groupby("doc_id")}
        for task, own in keys.groupby("task")
    }
    rng = np.random.default_rng(0)
    for _ in range(times):
        picked = rng.choice(doc, doc.size)
        tables = {"tasks": kept["tasks"]}
        for name, rows in by.items():
            found = [rows[d] for d in picked]
            new = np.repeat(np.arange(picked.size), [len(f) for f in found])
            tables[name] = _renumbered(kept[name], np.concatenate(found), {"doc": new})
        places, new = [], []
        for rows in items.values():
            for number, one in enumerate(rng.choice(np.array(list(rows)), len(rows))):
                places.append(rows[one])
                new += [number] * len(rows[one])
        if places:
            cluster = [str(x) for x in new]
            tables["items"] = _renumbered(
                kept["items"], np.concatenate(places), {"doc_id": new, "cluster": cluster}
            )
        yield InMemory(run.manifest, tables)


def _renumbered(table: pa.Table, rows: Any, columns: dict[str, Any]) -> pa.Table:
    taken = table.take(pa.array(rows))
    for name, values in columns.items():
        at = taken.schema.get_field_index(name)
        taken = taken.set_column(at, name, pa.array(values, taken.schema.field(name).type))
    return taken
