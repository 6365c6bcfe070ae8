"""Flips of the most likely token, by what they do: the true token lost, or gained.

Most tokens whose most likely one changed were wrong before and are wrong after. Those that lose
the true token are harm and those that gain it are not, and near the reference, where KL no longer
follows task scores, it is their difference that tells (arXiv 2606.19558, 2407.09141).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from evalharness.metrics.evidence import View
from evalharness.metrics.families import DIVERGENCE
from evalharness.metrics.perplexity import over_tokens
from evalharness.metrics.registry import mean_metric
from evalharness.metrics.scopes import TEXT_KEYS, text_scopes
from evalharness.stats import rate_t
from evalharness.stats.net_rates import net_rate_t

# Rows without a number have no arg-max to speak of: kl says which they are.
_tokens: Callable[..., Any] = partial(over_tokens, "kl")
_text: Any = {
    "family": DIVERGENCE,
    "unit": "fraction",
    "identity": 0.0,
    "scopes": text_scopes,
    "scope_keys": TEXT_KEYS,
    "records": "tokens",
}


def _lost(view: View) -> Any:
    token = view.column("token")
    return (view.column("argmax_ref") == token) & (view.column("argmax_cand") != token)


def _gained(view: View) -> Any:
    token = view.column("token")
    return (view.column("argmax_ref") != token) & (view.column("argmax_cand") == token)


mean_metric(
    "top1.harmful",
    "Flips that lose the true token",
    _tokens(of=_lost),
    interval=rate_t,
    direction="lower",
    source="share of tokens that are the reference's arg-max and not the candidate's",
    **_text,
)
mean_metric(
    "top1.gained",
    "Flips that gain the true token",
    _tokens(of=_gained),
    interval=rate_t,
    direction="none",
    source="share of tokens that are the candidate's arg-max and not the reference's",
    **_text,
)
mean_metric(
    "top1.net_harm",
    "Harmful less gainful flips",
    _tokens(of=lambda view: _lost(view).astype(float) - _gained(view)),
    interval=net_rate_t,
    direction="lower",
    difference=True,
    signed=True,
    symmetric="odd",
    source="top1.harmful − top1.gained; the fall of top-1 accuracy",
    **_text,
)
