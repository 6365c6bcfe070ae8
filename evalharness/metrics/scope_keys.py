"""What each cluster of a metric's totals is, in one scope."""

from __future__ import annotations

import numpy as np
import pandas as pd

from evalharness.metrics.clusters import Keys
from evalharness.metrics.evidence import Evidence
from evalharness.metrics.scopes import of_tasks
from evalharness.spec.estimate import Scope


def document_keys(evidence: Evidence, scope: Scope) -> Keys | None:
    """Those of documents; a task's clusters are not known here."""
    return None if of_tasks(scope) else evidence.keys


def token_keys(evidence: Evidence, scope: Scope) -> Keys:
    """Those of documents, or of the items at whose continuations a task is scored."""
    if "task" not in scope:
        return evidence.keys
    rows = evidence.item_tokens
    return cluster_keys(evidence, scope["task"], rows[rows["task"] == scope["task"]])


def cluster_keys(evidence: Evidence, task: str, rows: pd.DataFrame) -> Keys:
    """Those of the clusters of ``rows`` of a task, as `factorize` numbers them."""
    known = evidence.item_keys
    found = [known.get((task, str(c)), 0) for c in pd.factorize(rows["cluster"])[1]]
    return np.array(found, np.uint64)
