"""What a document or item is, so that another run's can be told to be the same one.

The key of a document is a hash of its corpus, its name, the window it was fed in, and every token
that was scored of it with its position; that of documents that are one cluster of their keys; that
of a task's cluster of its items' prompts and targets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Keys = npt.NDArray[np.uint64]
"""One a cluster, (G,); 0 where nothing was recorded of it."""


def document_keys(
    documents: pd.DataFrame,
    rows: Mapping[str, npt.NDArray[np.int64]],
    window: Any,
) -> Keys:
    """The keys of the documents.

    Parameters
    ----------
    documents : one row a cluster, with ``corpus``, ``id`` and ``tokens``.
    rows : of the token records ``doc``, ``position`` and ``token``, (N,) each.
    window : what the suite says of windows: another one gives the same tokens another context.

    """
    order = np.lexsort((rows["token"], rows["position"], rows["doc"]))
    starts = np.searchsorted(rows["doc"][order], np.arange(len(documents) + 1))
    scored = np.column_stack([rows["position"][order], rows["token"][order]]).astype("<i8")
    facts = zip(*(documents[c] for c in ("corpus", "id", "tokens")), strict=True)
    keys = np.zeros(len(documents), np.uint64)
    for g, (corpus, id, tokens) in enumerate(facts):
        own = scored[starts[g] : starts[g + 1]]
        if len(own) and tokens == tokens:
            head = json.dumps([str(corpus), str(id), int(tokens), window], sort_keys=True)
            keys[g] = _key(head.encode(), own.tobytes())
    return keys


def joined_keys(keys: Keys, clusters: npt.NDArray[np.int64]) -> Keys:
    """The keys of clusters of several documents each, at the first of each, from those of these."""
    found = np.zeros_like(keys)
    order = np.lexsort((keys, clusters))
    firsts, starts = np.unique(clusters[order], return_index=True)
    for first, own in zip(firsts, np.split(keys[order], starts[1:]), strict=True):
        found[first] = own[0] if own.size == 1 else _key(own.astype("<u8").tobytes())
    return found


def item_keys(items: pd.DataFrame) -> dict[tuple[str, str], int]:
    """The keys of the clusters of all tasks' items, by task and cluster."""
    columns = ["task", "cluster", "doc_id", "prompt_hash", "target_hash"]
    parts: dict[tuple[str, str], list[list[str]]] = {}
    rows = items[columns].drop_duplicates().astype(str)
    for task, cluster, *item in rows.itertuples(index=False, name=None):
        parts.setdefault((task, cluster), []).append(item)
    return {
        (task, cluster): _key(json.dumps([task, sorted(own)]).encode())
        for (task, cluster), own in parts.items()
    }


def _key(*parts: bytes) -> int:
    digest = hashlib.sha256(b"\0".join(parts)).digest()
    return max(int.from_bytes(digest[:8], "little"), 1)
