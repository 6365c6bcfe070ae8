"""Perplexity and bits per byte: paired shifts over documents (Miller, arXiv 2411.00640)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from evalharness.metrics.evidence import Evidence, View
from evalharness.metrics.families import LOSS
from evalharness.metrics.registry import Spread, Totals, mean_metric
from evalharness.metrics.scopes import TEXT_KEYS, text_scopes
from evalharness.spec.estimate import Scope
from evalharness.stats import Interval, cluster_skew_t, exp_interval

_text: Any = {"family": LOSS, "scopes": text_scopes, "scope_keys": TEXT_KEYS, "records": "tokens"}


def over_tokens(*columns: str, of: Callable[[View], Any]) -> Callable[[Evidence, Scope], Totals]:
    """Totals of ``of(view)`` a document, unless one of ``columns`` is not finite somewhere."""

    def totals(evidence: Evidence, scope: Scope) -> Totals:
        view = evidence.tokens(scope)
        return view.bad(*columns) or view.sums(of(view))

    return totals


def difference(name: str, view: View) -> Any:
    """Candidate minus reference, a row each."""
    return view.column(f"{name}_cand") - view.column(f"{name}_ref")


_shift = over_tokens("nll_ref", "nll_cand", of=partial(difference, "nll"))


def _worst_document(evidence: Evidence, scope: Scope) -> str | None:
    found = _shift(evidence, scope)
    if isinstance(found, str):
        return None
    sums, counts = found
    mean = np.divide(sums, counts, out=np.full_like(sums, -np.inf), where=counts > 0)
    return f"document {evidence.document(int(mean.argmax()))} ({mean.max():+.4g} nats/token)"


NLL_SHIFT = mean_metric(
    "nll.shift",
    "Loss shift per token, candidate − reference",
    _shift,
    brief="Loss shift",
    worst=_worst_document,
    unit="nats/token",
    direction="lower",
    difference=True,
    identity=0.0,
    symmetric="odd",
    signed=True,
    source="mean of candidate NLL − reference NLL; Miller 2411.00640",
    spread=Spread(0.03),
    shown=("scopes",),
    **_text,
)
mean_metric(
    "perplexity.ratio",
    "Perplexity ratio, candidate ÷ reference",
    _shift,
    brief="Perplexity ratio",
    worst=_worst_document,
    transform=exp_interval,
    unit="ratio",
    direction="lower",
    identity=1.0,
    signed=True,
    source="exp(nll.shift)",
    spread=Spread(0.03),
    shown=("summary", "tile", "candidates", "proposal"),
    **_text,
)
for _side, _column in (("reference", "nll_ref"), ("candidate", "nll_cand")):
    mean_metric(
        f"perplexity.{_side}",
        f"Perplexity, {_side}",
        over_tokens(_column, of=partial(lambda name, view: view.column(name), _column)),
        transform=exp_interval,
        unit="1",
        direction="lower",
        identity=None,
        source="exp of mean NLL over scored tokens",
        **_text,
    )


def _byte_scopes(evidence: Evidence) -> list[Scope]:
    if evidence.documents.empty or (evidence.documents["bytes_ref"] <= 0).all():
        return []
    # Bytes are counted a document: a slice of positions has none of its own.
    return [s for s in text_scopes(evidence) if evidence.positions(s) is None] or [{}]


def _byte_totals(evidence: Evidence, scope: Scope) -> Totals:
    # Weighted by the reference's bytes, so that with one tokenizer it is Σ ΔNLL / Σ bytes exactly.
    frame = evidence.documents
    used = frame["scored_tokens"].notna().to_numpy()
    chosen = evidence.in_scope(scope)
    used = used if chosen is None else used & chosen
    frame = frame[used]
    if (frame["bytes_ref"] <= 0).any() or (frame["bytes_cand"] <= 0).any():
        return "some documents are token ids, whose text is not known"
    weight = frame["bytes_ref"].to_numpy(float)
    shift_g = (
        frame["nll_cand"].to_numpy(float) / frame["bytes_cand"].to_numpy(float)
        - frame["nll_ref"].to_numpy(float) / weight
    ) / math.log(2)
    if not np.isfinite(shift_g).all():
        return "some documents have NaN or infinite NLL"
    sums, counts = np.zeros((2, used.size))
    at = evidence.clusters_of(np.flatnonzero(used))
    np.add.at(sums, at, shift_g * weight)
    np.add.at(counts, at, weight)
    return sums, counts


def _per_byte(sums: Any, counts: Any, confidence: float) -> Interval:
    found = cluster_skew_t(sums, counts, confidence)
    return replace(found, method=f"{found.method}, n in bytes")


mean_metric(
    "bits_per_byte.shift",
    "Loss shift per byte of text",
    _byte_totals,
    family=LOSS,
    spread=Spread(0.01),
    interval=_per_byte,
    unit="bits/byte",
    direction="lower",
    difference=True,
    identity=0.0,
    symmetric="odd",
    scopes=_byte_scopes,
    scope_keys=TEXT_KEYS,
    records="documents",
    signed=True,
    source="NLL / (ln 2 · UTF-8 bytes of the scored text), paired by document",
)
