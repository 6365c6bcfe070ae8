"""Layers of a result: the error of every module, and which of the worst cannot be told apart."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from evalharness import stats
from evalharness.metrics import Estimates, Evidence
from evalharness.metrics.layers import EDGES, metric_of
from evalharness.metrics.numbers import CONFIDENCE, decibels, finite, relative
from evalharness.results.weights import root_ratio
from evalharness.spec.module_results import LayerResult

RANKED, NAMED = 20, 10  # modules of each ranking compared with others; neighbours named of each


def layers(evidence: Evidence, estimates: Estimates) -> list[LayerResult]:
    """One row a module and kind of error, in the order of the model."""
    results = []
    worst = worst_channels(evidence)
    for (error, layer), rows in evidence.layers.items():
        estimate = estimates.estimate(metric_of(error), {"layer": layer}, CONFIDENCE)
        sums = {
            name: float(rows.column(name).astype(float).sum())
            for name in (
                "tokens",
                "err_sq",
                "ref_sq",
                "update_sq",
                "cos_sum",
                "pos0_err_sq",
                "pos0_ref_sq",
            )
        }
        tokens, pooled = sums["tokens"], relative(sums["err_sq"], sums["ref_sq"])
        largest = rows.largest()
        place = None
        if largest is not None:
            place = f"{evidence.document(largest[0])} position {largest[2]} channel {largest[3]}"
        # A low percentile of the cosine is a high one of 1 − cosine.
        away = stats.histogram_quantile(rows.histogram("cos").sum(0), EDGES, 0.99) if tokens else 0
        results.append(
            LayerResult(
                layer=layer,
                kind=cast(Any, rows.text("kind")),
                type=rows.text("type"),
                error=error,
                tokens=int(tokens),
                median=estimate.value,
                low=estimate.low,
                high=estimate.high,
                pooled=pooled,
                sqnr_db=decibels(pooled),
                cosine_mean=finite(sums["cos_sum"] / tokens) if tokens else None,
                cosine_p01=finite(1 - away) if tokens else None,
                max_abs=largest and largest[1],
                max_abs_at=place,
                position0=relative(sums["pos0_err_sq"], sums["pos0_ref_sq"]),
                update=relative(sums["err_sq"], sums["update_sq"]),
                **_update_ends(evidence, rows),
                **worst.get((error, layer), {}),
            )
        )
    return told_apart(results)


def _update_ends(evidence: Evidence, rows: Any) -> dict[str, Any]:
    """The interval of the error relative to the block's update, over documents."""
    err, update = (rows.column(c).astype(float) for c in ("err_sq", "update_sq"))
    if not (np.isfinite(err).all() and np.isfinite(update).all() and update.sum() > 0):
        return {}
    found = root_ratio(*evidence.by_cluster(rows.column("doc"), err, update))
    return {"update_low": found.low, "update_high": found.high}


def worst_channels(evidence: Evidence) -> dict[tuple[str, str], dict[str, Any]]:
    """By (error, layer): the channel with the most squared error, and its share of all.

    A block of records keeps its own worst channels, so the share is of what they were seen with.
    """
    table = evidence.run.table("channels").to_pandas()
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for (error, layer), rows in table.groupby(["error", "layer"], sort=False):
        by_channel = rows.groupby("channel")["err_sq"].sum()
        # Repeated in every row of a block.
        whole = rows.groupby(_blocks(rows))["all_err_sq"].first().sum()
        if np.isfinite(whole) and whole > 0:
            channel = int(by_channel.idxmax())
            found[str(error), str(layer)] = {
                "worst_channel": channel,
                "worst_channel_share": float(by_channel[channel] / whole),
            }
    return found


def _blocks(rows: Any) -> Any:
    """Number of the block of each row: within one its channels come in falling order, once each."""
    return (rows["all_err_sq"].diff().fillna(0) != 0).cumsum().to_numpy()


def told_apart(rows: list[LayerResult]) -> list[LayerResult]:
    """Say of the worst modules which others their interval overlaps, by error and by kind."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for i, row in enumerate(rows):
        if row.low is not None and row.high is not None and row.median:
            groups.setdefault((row.error, row.kind == "block"), []).append(i)
    result = list(rows)
    for members in groups.values():
        members.sort(key=lambda i: -(rows[i].median or 0.0))
        for i in members[:RANKED]:
            low, high = rows[i].low or 0.0, rows[i].high or 0.0
            near = [
                rows[k].layer
                for k in members
                if k != i and (rows[k].low or 0.0) <= high and (rows[k].high or 0.0) >= low
            ]
            result[i] = rows[i].model_copy(update={"alike": near[:NAMED], "alike_count": len(near)})
    return result
