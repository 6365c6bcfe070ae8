"""Results too good for compression to have made them.

Compression loses information. A compressed model that matches its reference to the last bit was
probably not loaded; one that beats it beyond noise was probably measured on other items, or holds
other weights. Either way the run says nothing of the candidate, however green it looks.
"""

from __future__ import annotations

from evalharness.errors import plural
from evalharness.gates.scopes import label
from evalharness.metrics import Estimates
from evalharness.metrics.divergence import KL_MEAN
from evalharness.metrics.tasks import SCORE_SHIFT
from evalharness.spec.result import Anomaly

# Error rate of the search over all tasks: one false alarm in a thousand runs.
_ALPHA = 0.001


def find_anomalies(estimates: Estimates, compressed: bool) -> list[Anomaly]:
    """What is unusually good.

    ``compressed`` says that the candidate's manifest claims compression and that it is not the
    same model as the reference; any other candidate may equal its reference or beat it.
    """
    if not compressed:
        return []
    return _no_divergence(estimates) + _better_tasks(estimates)


def _no_divergence(estimates: Estimates) -> list[Anomaly]:
    scopes = estimates.scopes(KL_MEAN.id)
    # A suite without texts has the positions at which its tasks are scored.
    whole = [{}] if {} in scopes else [s for s in scopes if "task" in s]
    found = [estimates.estimate(KL_MEAN.id, scope, 0.90) for scope in whole]
    count = sum(kl.n for kl in found)
    if count == 0 or any(kl.value != 0.0 for kl in found):
        return []
    return [
        Anomaly(
            kind="no_divergence",
            message=f"KL is exactly 0 over {plural(count, 'token')}, though the candidate "
            "claims to be compressed: was the reference loaded twice?",
        )
    ]


def _better_tasks(estimates: Estimates) -> list[Anomaly]:
    scopes = estimates.scopes(SCORE_SHIFT)
    found = []
    for scope in scopes:
        # Bonferroni over tasks; the interval is two-sided and only its lower end counts.
        shift = estimates.estimate(SCORE_SHIFT, scope, 1 - 2 * _ALPHA / len(scopes))
        if shift.low is not None and shift.low > 0 and shift.clusters > 1:
            found.append(
                Anomaly(
                    kind="better_than_reference",
                    message=f"the score of {label(scope)} is up by {shift.value:.4g}, at least "
                    f"{shift.low:.4g} beyond noise: compression does not add ability",
                    metric=SCORE_SHIFT,
                    scope=scope,
                )
            )
    return found
