"""What the verdicts cannot show: a rare fault behind a mean, harm behind a tiny divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evalharness.metrics import REGISTRY
from evalharness.metrics.divergence import KL_MEAN
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import GateResult, NearLossless, Unseen

# Nats a token up to which a candidate is near-lossless: the limit of the shipped policy `strict`,
# or ten times what rounding alone shows. Among candidates near their reference mean KL did not
# follow benchmark scores (rank correlations of 0 and −.24, against −.72 and −.86 over all of two
# cohorts; arXiv 2606.19558).
NEAR_LOSSLESS = 0.005
NOISE_FLOORS = 10


def unseen(gates: Sequence[GateResult], metrics: Sequence[Estimate]) -> Unseen | None:
    """The rarest fault that every PASS of a mean over documents can have seen."""
    documents = {(e.id, tuple(sorted(e.scope.items()))): e.clusters for e in metrics}
    passed = [
        (documents.get((g.metric, tuple(sorted(g.scope.items()))), 0), g)
        for g in gates
        if g.verdict == "PASS" and _is_mean_of_texts(g)
    ]
    passed = [(count, gate) for count, gate in passed if count > 1]
    if not passed:
        return None
    count, fewest = min(passed, key=lambda found: found[0])
    return Unseen(
        share=-math.expm1(math.log1p(-fewest.confidence) / count),
        documents=count,
        scope=fewest.scope,
        confidence=fewest.confidence,
        gates=[gate.id for _, gate in passed],
    )


def _is_mean_of_texts(gate: GateResult) -> bool:
    metric = REGISTRY.get(gate.metric)
    if metric is None or metric.totals is None or metric.share or "task" in gate.scope:
        return False
    return metric.records in ("tokens", "documents")


def near_lossless(gates: Sequence[GateResult], metrics: Sequence[Estimate]) -> NearLossless | None:
    """Whether mean KL over everything is near-lossless, and the gates that then decide."""
    kl = next((e for e in metrics if e.id == KL_MEAN.id and not e.scope), None)
    if kl is None or kl.high is None:
        return None
    limit = max(NEAR_LOSSLESS, NOISE_FLOORS * (kl.noise_floor or 0.0))
    if kl.high > limit:
        return None
    signed = [g.id for g in gates if g.metric in REGISTRY and REGISTRY[g.metric].signed]
    return NearLossless(kl=kl.high, limit=limit, gates=signed)
