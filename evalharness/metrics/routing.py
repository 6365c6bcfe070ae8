"""Router agreement of mixture-of-experts layers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from evalharness import stats
from evalharness.metrics.evidence import Evidence, undefined
from evalharness.metrics.families import LAYER
from evalharness.metrics.numbers import CONFIDENCE
from evalharness.metrics.registry import Measured, metric
from evalharness.spec.estimate import Scope
from evalharness.spec.module_results import RoutingResult


def _scopes(evidence: Evidence) -> list[Scope]:
    return [{"layer": str(name)} for name in evidence.frame("routing")["layer"].unique()]


def _rows(evidence: Evidence, layer: str) -> pd.DataFrame:
    frame = evidence.frame("routing")
    return frame[frame["layer"] == layer]


@metric(
    "router.agreement",
    "Same experts chosen",
    family=LAYER,
    unit="fraction",
    direction="higher",
    identity=1.0,
    source="share of the reference's choices of experts that the candidate makes too",
    scopes=_scopes,
    scope_keys=("layer",),
    records="routing",
)
def agreement(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    rows = _rows(evidence, scope["layer"])
    if rows.empty:
        return Measured(undefined("no token reached this router", confidence))
    by_doc = rows.groupby("doc")[["tokens_both", "tokens_ref"]].sum()
    both, sent = (by_doc[c].to_numpy(float) for c in ("tokens_both", "tokens_ref"))
    return Measured(stats.cluster_bootstrap_t(both, sent, confidence, log=False))


def routing(evidence: Evidence) -> list[RoutingResult]:
    """One row a router: tokens per expert on both sides, and the experts that saw none."""
    results = []
    for scope in _scopes(evidence):
        rows = _rows(evidence, scope["layer"])
        found = agreement(evidence, scope, CONFIDENCE).interval
        by_expert = rows.groupby("expert")[["tokens_ref", "tokens_cand"]].sum()
        sent = by_expert.to_numpy(np.int64)
        results.append(
            RoutingResult(
                layer=scope["layer"],
                tokens=int(rows.drop_duplicates("doc")["tokens"].sum()),
                agreement=found.value,
                low=found.low,
                high=found.high,
                reference=sent[:, 0].tolist(),
                candidate=sent[:, 1].tolist(),
                not_measured=[
                    int(e) for e, n in zip(by_expert.index, sent.sum(1), strict=True) if not n
                ],
            )
        )
    return results
