"""What each cluster of a metric's totals is, in one scope."""

from __future__ import annotations

import pandas as pd

from evalharness.metrics.clusters import Keys, item_keys
from evalharness.metrics.evidence import Evidence
from evalharness.spec.estimate import Scope


def document_keys(evidence: Evidence, scope: Scope) -> Keys | None:
    """Those of documents; a task's clusters are not known here."""
    return None if "task" in scope else evidence.keys


def token_keys(evidence: Evidence, scope: Scope) -> Keys:
    """Those of documents, or of the items at whose continuations a task is scored."""
    if "task" not in scope:
        return evidence.keys
    rows = evidence.item_tokens
    return cluster_keys(evidence, scope["task"], rows[rows["task"] == scope["task"]])


def cluster_keys(evidence: Evidence, task: str, rows: pd.DataFrame) -> Keys:
    """Those of the clusters of ``rows`` of a task, as `factorize` numbers them."""
    return item_keys(evidence.items, task, pd.factorize(rows["cluster"])[1])
