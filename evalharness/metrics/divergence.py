"""How far apart two next-token distributions are: KL, agreement, probabilities, logits.

Over the scored tokens of texts, and in ``scope: {task: …}`` over the positions at which a task's
continuations are scored, whose clusters are the task's items.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from evalharness.metrics.evidence import Evidence, View, undefined
from evalharness.metrics.families import DIVERGENCE, LOGITS
from evalharness.metrics.perplexity import difference, over_tokens
from evalharness.metrics.registry import Measured, Spread, mean_metric, metric
from evalharness.metrics.scope_keys import token_keys
from evalharness.metrics.scopes import TEXT_KEYS, TOKEN_KEYS, text_scopes, token_scopes
from evalharness.spec.estimate import Scope
from evalharness.stats import (
    Interval,
    positive_mean_t,
    quantile_bootstrap,
    rate_t,
    rms_t,
    typical_lognormal,
)

_tokens: Any = {
    "scopes": token_scopes,
    "scope_keys": TOKEN_KEYS,
    "records": "tokens",
    "keys": token_keys,
}
_text: Any = {"scopes": text_scopes, "scope_keys": TEXT_KEYS, "records": "tokens"}
_kl: Any = {
    "family": DIVERGENCE,
    "unit": "nats/token",
    "direction": "lower",
    "identity": 0.0,
    "grows": True,
    **_tokens,
}


def _typical_kl(spread: Spread, documents: int, confidence: float) -> Interval:
    value = spread.value or 0.0
    kl = value * typical_lognormal(documents, spread.sd / value if value else 0.0)
    return positive_mean_t(kl, np.ones(documents), confidence)


# The deviation of a lognormal with σ = .5: documents of one kind of text.
_mean_kl: Any = {"spread": Spread(0.53, relative=True), "typical": _typical_kl, **_kl}
_KL = "KL(p‖q) = Σ p·(log p − log q) over the whole vocabulary"


def _largest(column: str, evidence: Evidence, scope: Scope) -> str | None:
    view = evidence.tokens(scope)
    values = view.column(column)
    row = int(values.argmax())
    return f"token at {view.place(row)} ({values[row]:.4g})"


KL_MEAN = mean_metric(
    "kl.mean",
    "KL divergence, mean",
    over_tokens("kl", of=lambda view: view.column("kl")),
    brief="Mean KL divergence",
    worst=partial(_largest, "kl"),
    interval=positive_mean_t,
    source=f"{_KL}; reference ‖ candidate",
    shown=("summary", "tile", "scopes", "tasks", "candidates", "proposal"),
    mark="mean",
    **_mean_kl,
)
mean_metric(
    "kl.reverse.mean",
    "Reverse KL divergence, mean",
    over_tokens("kl_reverse", of=lambda view: view.column("kl_reverse")),
    worst=partial(_largest, "kl_reverse"),
    interval=positive_mean_t,
    source=f"{_KL}; candidate ‖ reference",
    **_mean_kl,
)


def _quantile(
    column: str, q: float, evidence: Evidence, scope: Scope, confidence: float
) -> Measured:
    view = evidence.tokens(scope)
    reason = view.bad(column)
    if reason:
        return Measured(undefined(reason, confidence, len(view.column("doc"))))
    interval = quantile_bootstrap(view.column(column), view.cluster, q, confidence)
    return Measured(interval, _largest(column, evidence, scope))


def _maximum(column: str, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    view = evidence.tokens(scope)
    values = view.column(column)
    reason = view.bad(column)
    if reason:
        return Measured(undefined(reason, confidence, len(values)))
    clusters = len(np.unique(view.cluster))
    interval = Interval(
        float(values.max()),
        None,
        None,
        confidence,
        len(values),
        clusters,
        "maximum",
        reason="a maximum grows with the sample: it has no interval; gate a quantile or a rate",
    )
    return Measured(interval, _largest(column, evidence, scope))


for _id, _q, _name, _more in (
    ("kl.median", 0.5, "median", {"mark": "median"}),
    ("kl.p99", 0.99, "99th percentile", {"mark": "p99", "shown": ("proposal",)}),
    (
        "kl.p999",
        0.999,
        "99.9th percentile",
        {"brief": "KL divergence, p99.9", "mark": "p99.9", "shown": ("summary",)},
    ),
):
    metric(_id, f"KL divergence, {_name}", source="pooled quantile of KL", **_more, **_kl)(
        partial(_quantile, "kl", _q)
    )
metric(
    "kl.max",
    "KL divergence, largest",
    source="largest KL over tokens",
    instead="kl.p999",
    **_kl,
)(partial(_maximum, "kl"))


def _same_top(view: View) -> Any:
    return view.column("argmax_ref") == view.column("argmax_cand")


mean_metric(
    "top1.agreement",
    "Same most likely token",
    over_tokens("kl", of=_same_top),
    brief="Same top token",
    family=DIVERGENCE,
    interval=rate_t,
    shown=("summary", "tile", "scopes", "tasks", "candidates", "proposal"),
    unit="fraction",
    direction="higher",
    identity=1.0,
    symmetric="even",
    source="share of tokens with the same arg-max (ties: lowest id)",
    **_tokens,
)


def _accepted(apart: Interval) -> Interval:
    """The share that is accepted, from the interval of the mean total variation."""
    return replace(
        apart,
        value=None if apart.value is None else 1 - apart.value,
        low=None if apart.high is None else max(0.0, 1 - apart.high),
        high=None if apart.low is None else min(1.0, 1 - apart.low),
        method=f"1 − {apart.method}",
    )


def _least_accepted(evidence: Evidence, scope: Scope) -> str | None:
    view = evidence.tokens(scope)
    apart = view.column("total_variation")
    row = int(apart.argmax())
    return f"token at {view.place(row)} ({1 - apart[row]:.4g})"


mean_metric(
    "acceptance.rate",
    "Tokens that speculative decoding would accept",
    over_tokens("total_variation", of=lambda view: view.column("total_variation")),
    brief="Acceptance rate",
    interval=positive_mean_t,
    transform=_accepted,
    worst=_least_accepted,
    family=DIVERGENCE,
    unit="fraction",
    direction="higher",
    identity=1.0,
    symmetric="even",
    source="mean of Σ min(p, q) = 1 − total variation; Leviathan 2211.17192",
    **_tokens,
)
mean_metric(
    "top5.overlap",
    "Overlap of the five most likely tokens",
    over_tokens("top5_overlap", of=lambda view: view.column("top5_overlap") / 5),
    family=DIVERGENCE,
    interval=rate_t,
    unit="fraction",
    direction="higher",
    identity=1.0,
    symmetric="even",
    source="mean of |top5 ∩ top5′| / 5",
    **_tokens,
)


@metric(
    "prob.rms_shift",
    "RMS change of the true token's probability",
    family=DIVERGENCE,
    unit="fraction",
    direction="lower",
    identity=0.0,
    symmetric="even",
    source="√mean (p_cand − p_ref)²; llama.cpp Δp",
    **_text,
)
def prob_rms_shift(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    view = evidence.tokens(scope)
    reason = view.bad("nll_ref", "nll_cand")
    if reason:
        return Measured(undefined(reason, confidence, len(view.column("doc"))))
    moved = np.exp(-view.column("nll_cand")) - np.exp(-view.column("nll_ref"))
    return Measured(rms_t(*view.sums(moved**2), confidence))


mean_metric(
    "entropy.shift",
    "Entropy shift, candidate − reference",
    over_tokens("entropy_ref", "entropy_cand", of=partial(difference, "entropy")),
    family=DIVERGENCE,
    spread=Spread(0.03),
    unit="nats/token",
    direction="none",
    difference=True,
    identity=0.0,
    symmetric="odd",
    source="mean of H(q) − H(p)",
    **_tokens,
)
_logits: Any = {
    "family": LOGITS,
    "unit": "logits",
    "direction": "lower",
    "identity": 0.0,
    "symmetric": "even",
}
metric(
    "logit.max_abs_diff",
    "Largest logit difference",
    shift_invariant=False,
    source="max over tokens and vocabulary of |z′ − z|",
    instead="logit.half_range.p999",
    **_logits,
    **_tokens,
)(partial(_maximum, "max_abs"))
metric(
    "logit.half_range",
    "Logit half-range, largest",
    source="max over tokens of (max Δ − min Δ)/2; bounds KL ≤ (2h)²/8",
    instead="logit.half_range.p999",
    **_logits,
    **_tokens,
)(partial(_maximum, "half_range"))
metric(
    "logit.half_range.p999",
    "Logit half-range, 99.9th percentile",
    brief="Logit half-range, p99.9",
    source="pooled quantile of (max Δ − min Δ)/2",
    shown=("summary", "tasks"),
    **_logits,
    **_tokens,
)(partial(_quantile, "half_range", 0.999))
