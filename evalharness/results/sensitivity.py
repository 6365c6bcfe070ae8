"""The sensitivity ranking from its records, with intervals over documents.

No registered metric: it is measured by `bisect`, on the documents of the search, and no gate may
rest on what a search has looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from evalharness import stats
from evalharness.metrics.evidence import Evidence
from evalharness.metrics.numbers import CONFIDENCE
from evalharness.spec.estimate import Estimate
from evalharness.spec.module_results import SensitiveModule, Sensitivity


def sensitivity(evidence: Evidence) -> Sensitivity | None:
    """Modules, the most sensitive first; None where no bisect was run."""
    frame = evidence.frame("sensitivity")
    if frame.empty:
        return None
    known = evidence.run.manifest.get("sensitivity", {})
    rows: dict[Any, pd.DataFrame] = dict(iter(frame.groupby(["what", "module"], sort=False)))
    base = rows.get(("restore", ""))
    modules = []
    for name in known.get("order", []):
        swap, restore = rows.get(("swap", name)), rows.get(("restore", name))
        gain = None
        if restore is not None and base is not None:
            gain = restore.assign(kl=base["kl"].to_numpy() - restore["kl"].to_numpy())
        modules.append(
            SensitiveModule(
                module=name,
                score=_mean(rows.get(("gradient", name))),
                swap=_estimate(evidence, "swap", name, swap),
                restore=_estimate(evidence, "restore", name, gain),
                noise=_mean(rows.get(("noise", name))),
            )
        )
    together = _mean(rows.get(("swap", "*")))
    single = sum(m.swap.value or 0.0 for m in modules if m.swap is not None)
    first = frame[frame["module"] == frame["module"].iloc[0]].drop_duplicates("doc")
    notes = []
    if known.get("zero_swap"):
        notes.append(
            f"a module swapped for itself gives KL {known['zero_swap']:.3g} instead of 0: this "
            "model's passes are not repeatable, and the numbers carry that noise"
        )
    elif known.get("suffix") is False:
        notes.append("blocks could not be left out, so every swap was a whole pass")
    return Sensitivity(
        modules=modules,
        tokens=int(first["tokens"].sum()),
        documents=len(first),
        zero_swap=known.get("zero_swap"),
        additivity=single / together if together else None,
        notes=notes,
    )


def _mean(rows: pd.DataFrame | None) -> float | None:
    if rows is None:
        return None
    value = float(rows["kl"].sum() / rows["tokens"].sum())
    return value if np.isfinite(value) else None


def _estimate(
    evidence: Evidence, what: str, module: str, rows: pd.DataFrame | None
) -> Estimate | None:
    if rows is None:
        return None
    direction = "lower" if what == "swap" else "higher"
    common = {
        "id": f"sensitivity.{what}",
        "scope": {"layer": module},
        "confidence": CONFIDENCE,
        "unit": "nats/token",
        "direction": direction,
    }
    if not np.isfinite(rows["kl"]).all():
        return Estimate(value=None, reason="the KL is NaN or infinite", **common)
    totals = (rows[column].to_numpy() for column in ("kl", "tokens"))
    kl, tokens = evidence.by_cluster(rows["doc"].to_numpy(), *totals)
    found = stats.cluster_skew_t(kl, tokens, CONFIDENCE)
    return Estimate(
        value=found.value,
        low=found.low,
        high=found.high,
        method=found.method,
        n=int(rows["tokens"].sum()),
        clusters=found.clusters,
        reason=found.reason,
        **common,
    )
