"""What makes a run untrustworthy that nobody noted while it was measured.

A number that is none is an anomaly whether or not a gate asks for it. So are results too good for
compression to have made them. Compression loses information. A compressed model that matches its
reference to the last bit was probably not loaded; one that beats it well beyond noise was probably
measured on other items, or holds other weights. Either way the run says nothing of the candidate,
however green it looks. A gain that is small, or seen on few items, is likelier chance, or rounding
that happened to help: `doubts` names it, and it decides nothing.
"""

from __future__ import annotations

import pyarrow as pa

from evalharness.errors import plural
from evalharness.gates.scopes import label
from evalharness.metrics import Estimates, Evidence
from evalharness.metrics.divergence import KL_MEAN
from evalharness.metrics.not_finite import Where
from evalharness.metrics.tasks import REFERENCE_SCORE, SCORE_SHIFT
from evalharness.run.records import SCHEMAS
from evalharness.spec.estimate import Estimate
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

# The rest of a token's row takes the whole vocabulary.
_OF_A_SERVER = ("nll_ref", "nll_cand", "kl", "entropy_ref", "conf_ref", "conf_cand")

# Error rate of the search over all tasks: one false alarm in a thousand runs.
_ALPHA = 0.001
_GAIN = 0.05  # of the reference's own score: what rounding near it may gain stays below
_FEWEST = 50  # items: an interval at so small an error rate is not to be trusted on fewer


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
        if kind == "tokens" and evidence.top_logprobs:
            names = _OF_A_SERVER
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
    if count == 0 or any(kl.value != 0.0 or kl.at_least for kl in found):
        return []
    return [
        Anomaly(
            kind="no_divergence",
            message=f"KL is exactly 0 over {plural(count, 'token')}, though the candidate "
            "claims to be compressed: was the reference loaded twice?",
        )
    ]


def _better_tasks(estimates: Estimates) -> list[Anomaly]:
    return [
        Anomaly(
            kind="better_than_reference",
            message=f"the score of {label(shift.scope)} is better by {shift.value:.4g}, at least "
            f"{shift.low:.4g} beyond noise: compression does not add ability",
            metric=SCORE_SHIFT,
            scope=shift.scope,
        )
        for shift, why_not in _gains(estimates)
        if why_not is None
    ]


def doubts(estimates: Estimates, compressed: bool) -> list[str]:
    """Gains of a compressed candidate beyond noise that are too small, or too few, to decide on."""
    if not compressed:
        return []
    return [
        f"the score of {label(shift.scope)} is better by {shift.value:.4g} than the reference's, "
        f"beyond noise; it decides nothing here, since {why}"
        for shift, why in _gains(estimates)
        if why is not None
    ]


def _gains(estimates: Estimates) -> list[tuple[Estimate, str | None]]:
    """Score shifts wholly above 0, each with why nothing follows from it; None: something does."""
    scopes = estimates.scopes(SCORE_SHIFT)
    found: list[tuple[Estimate, str | None]] = []
    for scope in scopes:
        # Bonferroni over tasks; the interval is two-sided and only its lower end counts.
        shift = estimates.estimate(SCORE_SHIFT, scope, 1 - 2 * _ALPHA / len(scopes))
        if shift.low is None or shift.low <= 0 or shift.clusters < 2:
            continue
        least = _GAIN * abs(estimates.estimate(REFERENCE_SCORE, scope, 0.90).value or 0.0)
        why = None
        if shift.clusters < _FEWEST:
            why = f"{plural(shift.clusters, 'item')} are fewer than the {_FEWEST} that it takes"
        elif shift.low < least:
            why = f"it may be no more than {shift.low:.4g}, and {least:.4g} would be too good"
        found.append((shift, why))
    return found
