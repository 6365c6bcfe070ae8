"""Linear CKA: HSIC summed over minibatches before the division, jackknifed over them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from evalharness.metrics.evidence import Evidence
from evalharness.metrics.numbers import CONFIDENCE, finite
from evalharness.spec.module_results import Similarity
from evalharness.stats.means import t_interval

LEAST = 4  # minibatches for an interval


def similarity(evidence: Evidence) -> Similarity | None:
    """The matrix, and for each block of the reference the candidate's most similar one."""
    frame = evidence.frame("cka")
    if frame.empty:
        return None
    names = [list(dict.fromkeys(frame[side])) for side in ("reference", "candidate")]
    batches = sorted(frame["minibatch"].unique())
    shape = (len(batches), len(names[0]), len(names[1]))
    # Written minibatch by minibatch, reference by reference.
    both, ref, cand = (
        frame[c].to_numpy().reshape(shape) for c in ("hsic", "hsic_ref", "hsic_cand")
    )
    value = _cka(both.sum(0), ref.sum(0), cand.sum(0))
    best = []
    for i, name in enumerate(names[0]):
        if not np.isfinite(value[i]).any():
            continue
        j = int(np.nanargmax(value[i]))
        low, high = _interval(both[:, i, j], ref[:, i, j], cand[:, i, j], float(value[i, j]))
        best.append(
            {
                "reference": name,
                "candidate": names[1][j],
                "cka": float(value[i, j]),
                "low": low,
                "high": high,
            }
        )
    return Similarity(
        reference=names[0],
        candidate=names[1],
        best=best,
        minibatches=len(batches),
        cka=[[finite(v) for v in row] for row in value],
        tokens=int(frame.drop_duplicates("minibatch")["tokens"].sum()),
    )


def _cka(both: Any, ref: Any, cand: Any) -> Any:
    """HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)); NaN where one side does not vary."""
    product = ref * cand
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((ref > 0) & (cand > 0), both / np.sqrt(np.abs(product)), np.nan)


def _interval(both: Any, ref: Any, cand: Any, value: float) -> tuple[float | None, float | None]:
    """Leave-one-minibatch-out t interval, cut at 1; none from fewer than LEAST."""
    n = len(both)
    if n < LEAST:
        return None, None
    without = _cka(both.sum() - both, ref.sum() - ref, cand.sum() - cand)
    if not np.isfinite(without).all():
        return None, None
    se = math.sqrt((n - 1) / n * float(np.sum((without - without.mean()) ** 2)))
    found = t_interval(value, se, CONFIDENCE, n, n, "jackknife t")
    return found.low, None if found.high is None else min(1.0, found.high)
