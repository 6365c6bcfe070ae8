"""What makes a run untrustworthy that nobody noted while it was measured.

A number that is none is an anomaly whether or not a gate asks for it. So are results too good for
compression to have made them. Compression loses information. A compressed model that matches its
reference to the last bit was probably not loaded; one that beats it beyond noise was probably
measured on other items, or holds other weights. Either way the run says nothing of the candidate,
however green it looks.
"""

from __future__ import annotations

import pyarrow as pa

from evalharness.errors import plural
from evalharness.gates.scopes import label
from evalharness.metrics import Estimates, Evidence
from evalharness.metrics.divergence import KL_MEAN
from evalharness.metrics.not_finite import Where
from evalharness.metrics.tasks import SCORE_SHIFT
from evalharness.run.records import SCHEMAS
from evalharness.spec.result import Anomaly


def _floats(kind: str) -> tuple[str, ...]:
    return tuple(f.name for f in SCHEMAS[kind] if pa.types.is_floating(f.type))


# In a sound run each of these is a finite number in every row that the last tells: all of them, or
# those where a column is null, or is not.
_NUMBERS: list[tuple[str, tuple[str, ...], Where]] = [
    ("tokens", _floats("tokens"), None),
    ("item_tokens", _floats("item_tokens"), None),
    ("documents", ("nll_ref", "nll_cand"), None),
    ("items", ("score_ref", "score_cand"), None),
    ("items", ("conf_ref", "conf_cand"), ("correct_ref", False)),  # of multiple choice
    ("tasks", ("reference",), ("candidate", False)),  # where neither is: lm-eval gives no number
    ("tasks", ("candidate",), ("reference", False)),
    ("layers", ("err_sq", "ref_sq"), None),
    ("weights", ("err_sq", "ref_sq"), ("reason", True)),  # that there is no error
    ("timings", _floats("timings"), None),
]

# Error rate of the search over all tasks: one false alarm in a thousand runs.
_ALPHA = 0.001


def find_anomalies(estimates: Estimates, compressed: bool) -> list[Anomaly]:
    """What is no number though nothing says so, and what is unusually good.

    ``compressed`` says that the candidate's manifest claims compression and that it is not the
    same model as the reference; any other candidate may equal its reference or beat it.
    """
    found = [] if estimates.evidence.anomalies else _no_numbers(estimates.evidence)
    if compressed:
        found += _no_divergence(estimates) + _better_tasks(estimates)
    return found


def _no_numbers(evidence: Evidence) -> list[Anomaly]:
    found = []
    for kind, names, where in _NUMBERS:
        rows, *counts = evidence.not_finite(kind, names, where).tolist()
        for name, count in zip(names, counts, strict=True):
            if count:
                message = (
                    f"{name} is NaN or infinite in {count:,} of {rows:,} records of "
                    f"{kind}, and nothing says why"
                )
                found.append(Anomaly(kind="no number", message=message))
                break  # the others of the same rows say no more
    return found


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
