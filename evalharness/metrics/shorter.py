"""What more and shorter documents would save: the same tokens, cut elsewhere.

The tokens of a document are alike, so that its later ones say little that its first have not: what
an interval needs is documents. Told from one run: its documents are cut after so many tokens, which
gives the standard error of short documents, and √(tokens left / tokens) makes it that of as many
more of them as the same tokens allow. Of beginnings, that is: a cut changes what text is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evalharness.metrics.estimates import Estimates
from evalharness.metrics.evidence import Evidence
from evalharness.spec.estimate import Scope
from evalharness.spec.slices import Subset
from evalharness.stats.means import ratio_se, used_clusters

_SHORTEST = 32  # tokens
_NAME = "cut"


@dataclass(frozen=True)
class Shorter:
    """Documents cut after ``tokens`` tokens.

    Attributes
    ----------
    documents : how many times as many they are, for the same tokens.
    errors : standard error of each mean, as a share of the run's own.

    """

    tokens: int
    documents: float
    errors: dict[str, float]


def shorter(estimates: Estimates, metrics: Sequence[str]) -> list[Shorter]:
    """Say what documents cut at a window, a half and a quarter of one would do to ``metrics``.

    Those that are no means over texts are left out, and so are cuts that hardly shorten anything.
    """
    evidence = estimates.evidence
    whole = {m: _error(estimates, m, {}) for m in dict.fromkeys(metrics)}
    window = int(evidence.run.manifest["suite"]["window"]["tokens"])
    found = []
    for tokens in (window, window // 2, window // 4):
        if tokens < _SHORTEST:
            break
        cut = Evidence(evidence.run)
        cut.slices = {_NAME: Subset(_NAME, {"position": f"0:{tokens}"})}
        errors, many = {}, 1.0
        for metric, now in whole.items():
            then = None if now is None else _error(Estimates(cut), metric, {"slice": _NAME})
            if now is None or then is None or not now[0]:
                continue
            many = now[1] / then[1]
            errors[metric] = then[0] / math.sqrt(many) / now[0]
        if errors and many > 1.05:
            found.append(Shorter(tokens, many, errors))
    return found


def _error(estimates: Estimates, metric: str, scope: Scope) -> tuple[float, float] | None:
    """The standard error of a mean over documents, and the rows it is of."""
    if scope not in estimates.scopes(metric):
        return None
    parts = estimates.parts(metric, scope)
    if parts is None or parts[0].size < 2:
        return None
    sums, counts = used_clusters(*parts)
    return ratio_se(sums, counts), float(counts.sum())
