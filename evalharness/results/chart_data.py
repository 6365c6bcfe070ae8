"""What the report draws, and the tokens that it shows in context."""

from __future__ import annotations

import numpy as np

from evalharness import stats
from evalharness.metrics import Evidence, calibration
from evalharness.metrics.numbers import finite
from evalharness.results.confidence import kl_by_confidence
from evalharness.spec.result import (
    NEXT_TOKEN,
    DocumentShift,
    Figures,
    Histogram,
    ReliabilityBin,
    WorstToken,
)

SHOWN_TOKENS = 8  # worst tokens shown by each criterion


def chart_data(evidence: Evidence) -> Figures:
    """Histogram of KL, KL by confidence, reliability of both sides, one point a document."""
    reliability: dict[str, dict[str, list[ReliabilityBin]]] = {}
    for scope in calibration.scopes(evidence):
        if scope and "task" not in scope:
            continue
        found = calibration.predictions(evidence, scope)
        if isinstance(found, str):
            continue
        reliability[scope.get("task", NEXT_TOKEN)] = {
            side: [
                ReliabilityBin(n=b.n, confidence=b.confidence, accuracy=b.accuracy)
                for b in stats.ece(*found.side(side)).bins
            ]
            for side in ("reference", "candidate")
        }
    if not evidence.has_tokens:
        return Figures(reliability=reliability)
    view = evidence.tokens({})
    kl = view.column("kl")
    kl = kl[np.isfinite(kl)]
    edges = np.logspace(-7, 2, 73)
    above = kl[kl > 0]
    counts, _ = np.histogram(above.clip(edges[0], edges[-1]), edges)
    # A position without a number leaves its own document without one, and no other.
    shift, n = view.document_sums(view.column("nll_cand") - view.column("nll_ref"))
    divergence, _ = view.document_sums(view.column("kl"))
    documents = [
        DocumentShift(
            document=row["id"],
            corpus=row["corpus"],
            tokens=int(n[i]),
            shift=finite(shift[i] / n[i]),
            kl=finite(divergence[i] / n[i]),
        )
        for i in np.flatnonzero(n)
        for row in [evidence.documents.iloc[int(i)]]
    ]
    return Figures(
        kl=Histogram(edges=edges.tolist(), counts=counts.tolist(), zeros=int((kl == 0).sum())),
        kl_by_confidence=kl_by_confidence(evidence),
        reliability=reliability,
        nll_by_document=documents,
    )


def worst_tokens(evidence: Evidence) -> list[WorstToken]:
    """The most extreme tokens by each criterion, in context."""
    frame = evidence.run.table("contexts").to_pandas()
    results = []
    for by in ("kl", "nll", "half_range", "max_abs"):
        for row in frame[frame["by"] == by].nlargest(SHOWN_TOKENS, "value").to_dict("records"):
            document = evidence.documents.iloc[int(row.pop("doc"))]
            row["value"] = float(row["value"])
            results.append(WorstToken(corpus=document["corpus"], document=document["id"], **row))
    return results
