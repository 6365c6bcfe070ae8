"""KL by the reference's confidence: whether what moved is what the reference was sure of."""

from __future__ import annotations

import numpy as np

from evalharness import stats
from evalharness.metrics import Evidence
from evalharness.metrics.divergence import KL_MEAN
from evalharness.metrics.numbers import CONFIDENCE, finite
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import ConfidenceBin

_BINS = 10
_STOPPED = "the run may have stopped early, and this interval is for documents counted beforehand"


def kl_by_confidence(evidence: Evidence) -> list[ConfidenceBin]:
    """Mean KL over the tokens of each tenth of ``conf_ref``, documents being the clusters."""
    view = evidence.tokens({})
    if view.bad("kl", "conf_ref") is not None:
        return []
    confidence, kl, cluster = view.column("conf_ref"), view.column("kl"), view.cluster
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, _BINS + 1)))[1:-1]
    place = np.searchsorted(edges, confidence)  # a value on an edge belongs below it
    stopped = evidence.run.manifest.get("stop_early") is not None
    found = []
    for number in np.unique(place):
        chosen = place == number
        sums = np.bincount(cluster[chosen], kl[chosen], view.size)
        counts = np.bincount(cluster[chosen], minlength=view.size)
        mean = stats.positive_mean_t(sums, counts, CONFIDENCE)
        ends = (None, None) if stopped else (finite(mean.low), finite(mean.high))
        found.append(
            ConfidenceBin(
                low=float(confidence[chosen].min()),
                high=float(confidence[chosen].max()),
                kl=Estimate(
                    id=KL_MEAN.id,
                    value=finite(mean.value),
                    low=ends[0],
                    high=ends[1],
                    confidence=CONFIDENCE,
                    method=mean.method,
                    n=mean.n,
                    clusters=mean.clusters,
                    unit=KL_MEAN.unit,
                    direction=KL_MEAN.direction,
                    se=None if stopped else finite(mean.se),
                    reason=_STOPPED if stopped else mean.reason,
                ),
            )
        )
    return found
