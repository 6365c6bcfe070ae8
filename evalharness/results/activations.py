"""Activation ranges and outlier channels of both sides, and what the calibration text missed.

Descriptions of a sample, not estimates that a gate may rest on: a largest value has no honest
interval. The shares of values beyond the calibration's ranges are means over documents and have
one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from evalharness import stats
from evalharness.metrics.evidence import Evidence
from evalharness.metrics.numbers import CONFIDENCE, finite
from evalharness.spec.module_results import ActivationResult, CalibrationResult
from evalharness.stats import Interval


def activations(evidence: Evidence) -> list[ActivationResult]:
    """One row a module and side, in the order of the model."""
    frame, outliers = evidence.frame("activations"), evidence.frame("outliers")
    by: dict[Any, pd.DataFrame] = dict(iter(outliers.groupby(["layer", "side"], sort=False)))
    results = []
    order = frame["layer"].drop_duplicates().tolist()
    groups = sorted(
        frame.groupby(["layer", "side"], sort=False), key=lambda g: order.index(g[0][0])
    )
    for (layer, side), rows in groups:
        channels = int(rows["channels"].iloc[0])
        found = by[layer, side]
        largest = found[found["by"] == "max"].sort_values("rank")
        results.append(
            ActivationResult(
                layer=layer,
                side=side,
                tokens=int(rows["values"].sum()) // channels,
                channels=channels,
                max_abs=finite(rows["max_abs"].max(skipna=False)),
                kurtosis=kurtosis(
                    *(
                        rows[c].sum(skipna=False)
                        for c in ("values", "sum", "sum_sq", "sum_cube", "sum_quad")
                    )
                ),
                top_energy=finite(found["top_energy"].iloc[0]),
                position0_max_abs=finite(rows["pos0_max_abs"].max(skipna=False)),
                outliers=[
                    {
                        "channel": int(r["channel"]),
                        "max_abs": finite(r["max_abs"]),
                        "energy": finite(r["energy"]),
                    }
                    for r in largest.to_dict("records")
                ],
            )
        )
    return results


def calibration(evidence: Evidence) -> list[CalibrationResult]:
    """One row a module, where the candidate's calibration text was given."""
    frame, outliers = evidence.frame("activations"), evidence.frame("outliers")
    seen = dict(iter(frame[frame["side"] == "calibration"].groupby("layer", sort=False)))
    shifts = outliers[outliers["side"] == "reference"].groupby("layer")["range_shift"].first()
    results = []
    for layer, rows in frame[frame["side"] == "reference"].groupby("layer", sort=False):
        if layer not in seen or rows["beyond_range"].isna().any():
            continue
        theirs = seen[layer]
        ours, largest = rows["max_abs"].max(skipna=False), theirs["max_abs"].max(skipna=False)
        whole, channel = (
            _share(
                *evidence.by_cluster(
                    rows["doc"].to_numpy(), rows[c].to_numpy(float), rows["values"].to_numpy(float)
                )
            )
            for c in ("beyond_range", "beyond_channel")
        )
        tokens = int(theirs["values"].sum()) // int(theirs["channels"].iloc[0])
        results.append(
            CalibrationResult(
                layer=str(layer),
                range_ratio=finite(ours / largest) if largest else None,
                channel_shift=finite(shifts.get(layer)),
                beyond_range=whole.value,
                beyond_range_low=whole.low,
                beyond_range_high=whole.high,
                beyond_channel=channel.value,
                beyond_channel_low=channel.low,
                beyond_channel_high=channel.high,
                by_chance=1 / (tokens + 1),
            )
        )
    return results


def kurtosis(n: float, s1: float, s2: float, s3: float, s4: float) -> float | None:
    """E(x − μ)⁴ / σ⁴ from n and Σx … Σx⁴; None where it is undefined.

    Of two, as scipy's with ``fisher=False, bias=True``.
    """
    if not n:
        return None
    m = s1 / n
    second = s2 / n - m**2
    fourth = s4 / n - 4 * m * s3 / n + 6 * m**2 * s2 / n - 3 * m**4
    return finite(fourth / second**2) if second > 0 else None


def _share(counts: Any, values: Any) -> Interval:
    found = stats.cluster_ratio_t(counts, values, CONFIDENCE)
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))
