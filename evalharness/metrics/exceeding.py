"""Documents beyond a bound: what no mean can see.

A fault in a few documents hides in a mean over many (Bahadur & Savage 1956), and so it does in an
interval of that mean unless one of them was drawn. The share of documents beyond a bound has an
exact interval (Clopper and Pearson's) whatever their distribution is: none beyond it in G documents
shows, at 95%, that fewer than 3/G of all are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from evalharness.metrics.evidence import Evidence, View
from evalharness.metrics.families import DIVERGENCE, LOGITS, LOSS
from evalharness.metrics.perplexity import difference
from evalharness.metrics.registry import Spread, Totals, mean_metric
from evalharness.metrics.scopes import TEXT_KEYS, text_scopes
from evalharness.spec.estimate import Scope
from evalharness.stats import Interval, clopper_pearson

# A policy picks one: scope: {bound: "4"}
LOGIT_BOUNDS = ("0.5", "1", "2", "4", "8", "16")  # logits
KL_BOUNDS = ("0.01", "0.025", "0.05", "0.1", "0.2", "0.5", "1")  # nats a token, mean of a document
NLL_BOUNDS = ("0.02", "0.05", "0.1", "0.2", "0.5", "1")  # nats a token, mean shift of a document

Measure = Callable[[View], Any]  # of each document (G,); NaN of those without a token


def _largest(view: View) -> Any:
    largest = np.full(view.size, np.nan)
    np.fmax.at(largest, view.cluster, view.column("half_range"))
    return largest


def _mean(of: Measure) -> Measure:
    def mean(view: View) -> Any:
        sums, counts = view.sums(of(view))
        return np.divide(sums, counts, out=np.full(view.size, np.nan), where=counts > 0)

    return mean


def _register(
    id: str,
    name: str,
    bounds: tuple[str, ...],
    columns: tuple[str, ...],
    measure: Measure,
    **facts: Any,
) -> None:
    """Register the share of documents whose ``measure`` is beyond a bound."""

    def measured(evidence: Evidence, scope: Scope) -> Any:
        view = evidence.tokens({key: value for key, value in scope.items() if key != "bound"})
        return view.bad(*columns) or measure(view)

    def totals(evidence: Evidence, scope: Scope) -> Totals:
        found = measured(evidence, scope)
        if isinstance(found, str):
            return found
        return (found > float(scope["bound"])).astype(float), (~np.isnan(found)).astype(float)

    def worst(evidence: Evidence, scope: Scope) -> str:
        found = measured(evidence, scope)
        at = int(np.nanargmax(found))
        return f"document {evidence.document(at)} ({found[at]:.4g})"

    def scopes(evidence: Evidence) -> list[Scope]:
        return [{"bound": bound, **scope} for scope in text_scopes(evidence) for bound in bounds]

    mean_metric(
        id,
        name,
        totals,
        interval=_of_documents,
        worst=worst,
        share=True,
        rate=True,
        min_n=2,  # exact however few
        spread=Spread(0.05, value=1 / 400),  # of a sound candidate's documents
        unit="fraction",
        direction="lower",
        identity=0.0,
        scopes=scopes,
        scope_keys=("bound", *TEXT_KEYS),
        bounds=bounds,
        records="tokens",
        **facts,
    )


def _of_documents(sums: Any, counts: Any, confidence: float) -> Interval:
    return clopper_pearson(int(sums.sum()), int(counts.sum()), confidence)


_register(
    "logit.exceed_rate",
    "Documents beyond the logit bound",
    LOGIT_BOUNDS,
    ("half_range",),
    _largest,
    family=LOGITS,
    symmetric="even",
    source="share of documents whose largest half-range exceeds the bound; Clopper–Pearson",
)
_register(
    "kl.exceed_rate",
    "Documents beyond the KL bound",
    KL_BOUNDS,
    ("kl",),
    _mean(lambda view: view.column("kl")),
    family=DIVERGENCE,
    source="share of documents whose mean KL exceeds the bound; Clopper–Pearson",
)
_register(
    "nll.exceed_rate",
    "Documents beyond the loss-shift bound",
    NLL_BOUNDS,
    ("nll_ref", "nll_cand"),
    _mean(lambda view: difference("nll", view)),
    family=LOSS,
    source="share of documents whose mean loss shift exceeds the bound; Clopper–Pearson",
)
