"""Routing of a result: where the router of each mixture-of-experts layer sends its tokens."""

from __future__ import annotations

import numpy as np

from evalharness.metrics import Evidence
from evalharness.metrics.numbers import CONFIDENCE
from evalharness.metrics.routing import agreement, routed, router_scopes
from evalharness.spec.module_results import RoutingResult


def routing(evidence: Evidence) -> list[RoutingResult]:
    """One row a router: tokens per expert on both sides, and the experts that saw none."""
    results = []
    for scope in router_scopes(evidence):
        rows = routed(evidence, scope["layer"])
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
