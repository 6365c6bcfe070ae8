"""The scopes that a family of metrics has in a run, and which of them share data."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from evalharness.metrics.evidence import Evidence
from evalharness.metrics.task_groups import together
from evalharness.spec.estimate import Scope


def text_scopes(evidence: Evidence) -> list[Scope]:
    """Everything, each corpus, each slice."""
    if not evidence.has_tokens:
        return []
    scopes: list[Scope] = [{}, *({"corpus": name} for name in evidence.corpora)]
    return scopes + [{"slice": name} for name in evidence.slices]


TEXT_KEYS = ("corpus", "slice")


def token_scopes(evidence: Evidence) -> list[Scope]:
    """Those of texts, and each task whose two sides were scored together."""
    names = evidence.item_tokens["task"].unique()
    return text_scopes(evidence) + [{"task": str(n)} for n in names]


TOKEN_KEYS = (*TEXT_KEYS, "task")


def task_scopes(keep: Callable[[pd.DataFrame], bool] = lambda rows: True) -> Any:
    """Each task and lm-eval metric whose rows ``keep`` accepts."""

    def scopes(evidence: Evidence) -> list[Scope]:
        items = evidence.items
        if items.empty:
            return []
        return [
            {"task": str(task), "metric": str(name)}
            for (task, name), rows in items.groupby(["task", "metric"], sort=False)
            if keep(rows)
        ]

    return scopes


TASK_KEYS = ("task", "metric")
GROUP_KEYS = ("task", "group", "metric")


def of_tasks(scope: Mapping[str, str]) -> bool:
    """Whether it is a task, or a group of tasks."""
    return "task" in scope or "group" in scope


def with_groups(tasks: Callable[[Evidence], list[Scope]]) -> Callable[[Evidence], list[Scope]]:
    """The scopes ``tasks``, then the groups all of whose tasks are among them."""

    def scopes(evidence: Evidence) -> list[Scope]:
        found = tasks(evidence)
        known = {(scope["task"], scope["metric"]) for scope in found}
        return found + [
            {"group": group, "metric": name}
            for (group, name), one in evidence.groups.items()
            if all((leaf, name) in known for leaf in one.weights)
        ]

    return scopes


def sharing_data(evidence: Evidence, scopes: Sequence[Scope]) -> list[int]:
    """Number alike the scopes that share documents or items, or that may do so."""
    sources: list[set[Hashable]] = []
    for scope in scopes:
        own: set[Hashable] = {evidence.task_sources.get(t) for t in evidence.leaves(scope)}
        chosen = None if own else evidence.in_scope(scope)
        if chosen is not None:
            own = set(evidence.clusters_of(np.flatnonzero(chosen)).tolist())
        if not own:
            return [0] * len(scopes)  # over all documents, or of what is no document
        sources.append(own)
    return together(sources)
