"""Router agreement of mixture-of-experts layers."""

from __future__ import annotations

import pandas as pd

from evalharness import stats
from evalharness.metrics.evidence import Evidence, undefined
from evalharness.metrics.families import LAYER
from evalharness.metrics.registry import Measured, metric
from evalharness.spec.estimate import Scope


def router_scopes(evidence: Evidence) -> list[Scope]:
    """Each router."""
    return [{"layer": str(name)} for name in evidence.frame("routing")["layer"].unique()]


def routed(evidence: Evidence, layer: str) -> pd.DataFrame:
    """The records of one router."""
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
    scopes=router_scopes,
    scope_keys=("layer",),
    records="routing",
    min_n=10,  # few windows are probed
)
def agreement(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    rows = routed(evidence, scope["layer"])
    if rows.empty:
        return Measured(undefined("no token reached this router", confidence))
    clusters = evidence.clusters_of(rows["doc"].to_numpy())
    by_doc = rows.groupby(clusters)[["tokens_both", "tokens_ref"]].sum()
    both, sent = (by_doc[c].to_numpy(float) for c in ("tokens_both", "tokens_ref"))
    return Measured(stats.rate_t(both, sent, confidence))
