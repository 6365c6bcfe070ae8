"""Perplexity and bits per byte: paired shifts over documents (Miller, arXiv 2411.00640)."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from evalharness.metrics.evidence import TEXT_KEYS, Evidence, text_scopes, undefined
from evalharness.metrics.registry import Measured, Scope, metric
from evalharness.stats import Interval, cluster_ratio_t, exp_interval

_text: Any = {"scopes": text_scopes, "scope_keys": TEXT_KEYS, "records": "tokens"}


def shift(evidence: Evidence, scope: Scope, confidence: float) -> Interval:
    """Mean over tokens of candidate NLL − reference NLL, cluster-ratio t."""
    view = evidence.tokens(scope)
    reason = view.bad("nll_ref", "nll_cand")
    if reason:
        return undefined(reason, confidence, len(view.doc))
    return cluster_ratio_t(*view.sums(view.column("nll_cand") - view.column("nll_ref")), confidence)


@metric(
    "nll.shift", "NLL shift", unit="nats/token", direction="lower", difference=True, identity=0.0,
    symmetric="odd", source="mean of candidate NLL − reference NLL; Miller 2411.00640", **_text,
)  # fmt: skip
def nll_shift(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    return Measured(shift(evidence, scope, confidence), _worst_document(evidence, scope))


@metric(
    "perplexity.ratio", "Perplexity ratio", unit="ratio", direction="lower", identity=1.0,
    source="exp(nll.shift)", **_text,
)  # fmt: skip
def perplexity_ratio(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    return Measured(
        exp_interval(shift(evidence, scope, confidence)), _worst_document(evidence, scope)
    )


def _perplexity(column: str, evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    view = evidence.tokens(scope)
    reason = view.bad(column)
    if reason:
        return Measured(undefined(reason, confidence, len(view.doc)))
    return Measured(exp_interval(cluster_ratio_t(*view.sums(view.column(column)), confidence)))


for _side, _column in (("reference", "nll_ref"), ("candidate", "nll_cand")):
    metric(
        f"perplexity.{_side}", f"Perplexity, {_side}", unit="1", direction="lower", identity=None,
        source="exp of mean NLL over scored tokens", **_text,
    )(partial(_perplexity, _column))  # fmt: skip


def _byte_scopes(evidence: Evidence) -> list[Scope]:
    if evidence.documents.empty or (evidence.documents["bytes_ref"] <= 0).all():
        return []
    # Bytes are counted a document: a slice of positions has none of its own.
    return [s for s in text_scopes(evidence) if evidence.positions(s) is None] or [{}]


@metric(
    "bits_per_byte.shift", "Bits per byte, shift", unit="bits/byte", direction="lower",
    difference=True, identity=0.0, symmetric="odd", scopes=_byte_scopes, scope_keys=TEXT_KEYS,
    records="documents",
    source="NLL / (ln 2 · UTF-8 bytes of the scored text), paired by document",
)  # fmt: skip
def bits_per_byte(evidence: Evidence, scope: Scope, confidence: float) -> Measured:
    # Weighted by the reference's bytes, so that with one tokenizer it is Σ ΔNLL / Σ bytes exactly.
    frame = evidence.documents
    chosen = evidence.in_scope(scope)
    frame = frame if chosen is None else frame[chosen]
    frame = frame[frame["scored_tokens"].notna()]
    if (frame["bytes_ref"] <= 0).any() or (frame["bytes_cand"] <= 0).any():
        return Measured(
            undefined("some documents are token ids, whose text is not known", confidence)
        )
    weight = frame["bytes_ref"].to_numpy(float)
    shift_g = (
        frame["nll_cand"].to_numpy(float) / frame["bytes_cand"].to_numpy(float)
        - frame["nll_ref"].to_numpy(float) / weight
    ) / math.log(2)
    if not np.isfinite(shift_g).all():
        return Measured(undefined("some documents have NaN or infinite NLL", confidence))
    found = cluster_ratio_t(shift_g * weight, weight, confidence)
    return Measured(replace(found, n=int(frame["scored_tokens"].sum())))


def _worst_document(evidence: Evidence, scope: Scope) -> str | None:
    view = evidence.tokens(scope)
    if not len(view.doc) or view.bad("nll_ref", "nll_cand"):
        return None
    sums, counts = view.sums(view.column("nll_cand") - view.column("nll_ref"))
    mean = np.divide(sums, counts, out=np.full_like(sums, -np.inf), where=counts > 0)
    return f"document {evidence.document(int(mean.argmax()))} ({mean.max():+.4g} nats/token)"
