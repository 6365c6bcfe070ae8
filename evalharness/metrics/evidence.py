"""The records of one run as arrays, with one partition into documents that feeds every interval."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from evalharness.metrics import clusters
from evalharness.metrics.layer_rows import LayerRows
from evalharness.metrics.not_finite import Where, not_finite
from evalharness.metrics.task_groups import Groups, sharing, task_groups
from evalharness.run.part import Recorded
from evalharness.spec.estimate import Scope
from evalharness.spec.slices import SlicedDocument, Subset, subsets
from evalharness.stats import Interval

Floats = npt.NDArray[np.float64]

# Columns of the token records that are read together: most gates need no others.
_TOGETHER = (
    ("doc", "position", "nll_ref", "nll_cand", "kl"),
    ("token", "conf_ref", "conf_cand", "argmax_ref", "argmax_cand"),
)


@dataclass(frozen=True)
class View:
    """The token records within a scope of texts."""

    evidence: Evidence
    mask: npt.NDArray[np.bool_] | None

    @property
    def lacking(self) -> set[str]:
        """Columns looked at that the run was recorded without."""
        return self.evidence.lacking["tokens"]

    @property
    def size(self) -> int:
        """Clusters there are, those without a row in this scope among them."""
        return len(self.evidence.documents)

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column, (N,)."""
        values = self.evidence.column(name)
        return values if self.mask is None else values[self.mask]

    @property
    def cluster(self) -> npt.NDArray[np.int64]:
        """Cluster of each row, (N,): its document, or the first of those with the same text."""
        return self.evidence.clusters_of(self.column("doc"))

    def sums(self, values: npt.NDArray[Any]) -> tuple[Floats, Floats]:
        """Totals of ``values`` and numbers of rows in each cluster, (G,) each."""
        return self._sums(values, self.cluster)

    def document_sums(self, values: npt.NDArray[Any]) -> tuple[Floats, Floats]:
        """The same of each document, whether or not another holds its text."""
        return self._sums(values, self.column("doc"))

    def _sums(
        self, values: npt.NDArray[Any], codes: npt.NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        return (
            np.bincount(codes, values.astype(np.float64, copy=False), self.size).astype(np.float64),
            np.bincount(codes, minlength=self.size).astype(np.float64),
        )

    def bad(self, *columns: str) -> str | None:
        """Why these columns cannot be used: no row, or rows that are not finite. None: they can."""
        if not len(self.column("doc")):
            return "no token was scored here"
        for name in columns:
            values = self.column(name)
            if name in self.lacking:
                return self.evidence.why_lacking(name)
            count = int(np.count_nonzero(~np.isfinite(values)))
            if count:
                return f"{count} of {len(values)} positions have NaN or infinite {name}"
        return None

    def place(self, row: int) -> str:
        """Row ``row`` in words: its document and position."""
        document = self.evidence.document(int(self.column("doc")[row]))
        return f"{document} position {self.column('position')[row]}"


@dataclass(frozen=True)
class ItemView(View):
    """The positions of one task at which continuations are scored; clusters are those of items."""

    rows: pd.DataFrame

    @property
    def lacking(self) -> set[str]:
        """Columns that the run was recorded without."""
        return self.evidence.lacking["item_tokens"]

    @property
    def size(self) -> int:
        """Clusters there are."""
        return int(self.rows["cluster"].nunique())

    @property
    def cluster(self) -> npt.NDArray[np.int64]:
        """Cluster of each row, (N,)."""
        return self.column("doc")

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column, (N,); ``doc`` numbers the clusters."""
        if name == "doc":
            return pd.factorize(self.rows["cluster"])[0]
        values = self.rows[name].to_numpy()
        return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)

    def place(self, row: int) -> str:
        """Row ``row`` in words."""
        at = self.rows.iloc[row]
        return f"task {at['task']}, item {at['doc_id']} position {at['position']}"


class Evidence:
    """Lazily read records of a run."""

    def __init__(self, run: Recorded) -> None:
        self.run = run
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self._masks: dict[str, npt.NDArray[np.bool_] | None] = {}
        self._frames: dict[str, pd.DataFrame] = {}
        self.lacking: dict[str, set[str]] = {"tokens": set(), "item_tokens": set()}

    def frame(self, name: str) -> pd.DataFrame:
        """All records of one kind, read once."""
        if name not in self._frames:
            self._frames[name] = pd.DataFrame(self.run.table(name).to_pandas())
        return self._frames[name]

    @cached_property
    def documents(self) -> pd.DataFrame:
        """Documents by number; row i is document i."""
        table = self.frame("documents").sort_values("doc", ignore_index=True)
        if len(table) and list(table["doc"]) != list(range(len(table))):
            # A run that stopped early, or a document whose windows score nothing: keep the codes.
            table = table.set_index("doc").reindex(range(int(table["doc"].max()) + 1)).reset_index()
        return table

    @cached_property
    def _clusters(self) -> npt.NDArray[np.int64] | None:
        """Cluster of each document, (G,); None: each is its own."""
        groups = self.run.manifest.get("same_text")
        if not groups:
            return None
        found = np.arange(len(self.documents))
        for first, *others in groups:
            found[[n for n in others if n < len(found)]] = first
        return found

    def clusters_of(self, docs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Clusters of documents (N,): each its own, but those of one text the first of these."""
        return docs if self._clusters is None else self._clusters[docs]

    def by_cluster(
        self, docs: npt.NDArray[Any], *values: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[Any], ...]:
        """Add up rows (N, …) of documents (N,) that are of one cluster; (C, …) of each array."""
        if self._clusters is not None:
            kept, codes = np.unique(self.clusters_of(docs), return_inverse=True)
            sums = [np.zeros((len(kept), *v.shape[1:]), v.dtype) for v in values]
            for into, rows in zip(sums, values, strict=True):
                np.add.at(into, codes, rows)
            values = tuple(sums)
        return values

    @cached_property
    def corpora(self) -> list[str]:
        """The corpora that documents are of, in the order of their first."""
        return [str(name) for name in dict.fromkeys(self.documents["corpus"].dropna())]

    @cached_property
    def keys(self) -> clusters.Keys:
        """What the documents of each cluster are (`clusters`), (G,)."""
        rows = {name: self.column(name) for name in ("doc", "position", "token")}
        window = self.run.manifest["suite"].get("window")
        keys = clusters.document_keys(self.documents, rows, window)
        return keys if self._clusters is None else clusters.joined_keys(keys, self._clusters)

    @cached_property
    def item_keys(self) -> dict[tuple[str, str], int]:
        """What the items of each cluster of a task are (`clusters`)."""
        return clusters.item_keys(self.items)

    @cached_property
    def _docs(self) -> list[SlicedDocument]:
        columns = (self.documents[n] for n in ("corpus", "id", "attributes", "tokens"))
        return [
            SlicedDocument(
                str(c), str(i), json.loads(a) if isinstance(a, str) else {}, None if t != t else t
            )
            for c, i, a, t in zip(*columns, strict=True)
        ]

    @cached_property
    def slices(self) -> dict[str, Subset]:
        """The suite's slices by name."""
        manifest = self.run.manifest
        # A run lists those of all its documents, so that one stopped early has them as well.
        given = manifest.get("slices") or manifest.get("suite", {}).get("slices", [])
        return {s.name: s for s in subsets(given, self._docs)} if given else {}

    def not_finite(self, kind: str, names: Sequence[str], where: Where) -> npt.NDArray[np.int64]:
        """Rows of one kind of record, and in how many each of these columns is not finite."""
        return not_finite(self.run, kind, names, where)

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of the token records; floats come as float64."""
        if name not in self._columns:
            together = next((group for group in _TOGETHER if name in group), (name,))
            table = self._noted("tokens", list(together))
            for column in together:
                values = table[column].to_numpy()
                kind = np.float64 if values.dtype.kind == "f" else np.int64
                self._columns[column] = values.astype(kind)
        return self._columns[name]

    def _noted(self, kind: str, columns: list[str] | None = None) -> pa.Table:
        """Token records, the columns that an earlier version did not record taken note of."""
        table = self.run.table(kind, columns)
        self.lacking[kind] |= {
            name for name in table.column_names if 0 < len(table) == table[name].null_count
        }
        return table

    @property
    def top_logprobs(self) -> int:
        """The log-probabilities a position that a server gave of a side; 0: there is no server."""
        sides = self.run.manifest.get("sides") or {}
        return max((side.get("top_logprobs", 0) for side in sides.values()), default=0)

    def why_lacking(self, column: str) -> str:
        """Why no row has this column."""
        if self.top_logprobs:
            return (
                f"not measured: the candidate's server gives {self.top_logprobs} log-probabilities "
                "of each position and not the vocabulary"
            )
        return f"not measured: the run was recorded by a version without {column}"

    @property
    def has_tokens(self) -> bool:
        """Whether any token was scored on both sides."""
        return len(self.column("doc")) > 0

    def document(self, number: int) -> str:
        """A document in words."""
        row = self.documents.iloc[number]
        return f"{row['corpus']}/{row['id']}"

    def tokens(self, scope: Scope) -> View:
        """The token records within ``scope``; of a task, those at its items' continuations."""
        if "task" in scope:
            rows = self.item_tokens
            return ItemView(self, None, rows[rows["task"] == scope["task"]])
        key = json.dumps(scope, sort_keys=True)
        if key not in self._masks:
            chosen = self.in_scope(scope)
            mask = None if chosen is None else chosen[self.column("doc")]
            places = self.positions(scope)
            if places is not None and mask is not None:
                at = self.column("position")
                mask = mask & (at >= places[0]) & (at < places[1])
            self._masks[key] = mask
        return View(self, self._masks[key])

    def in_scope(self, scope: Scope) -> npt.NDArray[np.bool_] | None:
        """Which documents ``scope`` takes, (G,); None: all."""
        if "corpus" in scope:
            return np.asarray(self.documents["corpus"] == scope["corpus"], dtype=np.bool_)
        if "slice" in scope:
            chosen = self.slices[scope["slice"]]
            return np.array([chosen.takes(d) for d in self._docs], dtype=np.bool_)
        return None

    def positions(self, scope: Scope) -> tuple[int, float] | None:
        """The range of positions that a slice takes, as ``position: "128:512"`` says; None: all."""
        return self.slices[scope["slice"]].positions if "slice" in scope else None

    @property
    def items(self) -> pd.DataFrame:
        """Task items, one row an item and lm-eval metric."""
        return self.frame("items")

    def items_of(self, task: str, metric: str) -> pd.DataFrame:
        """The items of one task and lm-eval metric."""
        found = self._items_by.get((task, metric))
        return self.items.iloc[:0] if found is None else found

    @cached_property
    def _items_by(self) -> dict[tuple[str, str], pd.DataFrame]:
        by = self.items.groupby(["task", "metric"], sort=False)
        return {(str(task), str(metric)): rows for (task, metric), rows in by}

    @cached_property
    def item_tokens(self) -> pd.DataFrame:
        """Positions at which the continuations of task items are scored."""
        table = self._noted("item_tokens")
        return pd.DataFrame(table.to_pandas(categories=["task", "cluster"]))

    @property
    def tasks(self) -> pd.DataFrame:
        """lm-eval's aggregates."""
        return self.frame("tasks")

    @cached_property
    def groups(self) -> Groups:
        """The groups of tasks, by name and metric."""
        return task_groups(self.tasks, self.frame("groups"))

    def leaves(self, scope: Scope) -> frozenset[str]:
        """The tasks within ``scope``: one, or those of a group."""
        if "task" in scope:
            return frozenset((scope["task"],))
        if "group" not in scope:
            return frozenset()
        group = self.groups.get((scope["group"], scope.get("metric", "")))
        return frozenset(group.weights) if group is not None else frozenset()

    @cached_property
    def task_sources(self) -> dict[str, Hashable]:
        """By task, what is equal where tasks share items or passages."""
        return sharing(self.items, self.run.manifest.get("shared_items"))

    @cached_property
    def layers(self) -> dict[tuple[str, str], LayerRows]:
        """Layer records by (error, layer), in the order of the model."""
        table = self.run.table("layers")
        keys = list(zip(table["error"].to_pylist(), table["layer"].to_pylist(), strict=True))
        places: dict[tuple[str, str], list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        columns = {n: table[n].combine_chunks() for n in table.column_names}
        return {key: LayerRows(columns, np.array(rows)) for key, rows in places.items()}

    @cached_property
    def unmatched(self) -> list[str]:
        """Modules of either side that have no counterpart, or that no token reached."""
        matching = self.run.manifest.get("matching") or {}
        kinds = ("unmatched_reference", "unmatched_candidate", "not_measured")
        names = (text.partition(" (")[0] for kind in kinds for text in matching.get(kind, []))
        return list(dict.fromkeys(names))

    @property
    def timings(self) -> pd.DataFrame:
        """Seconds of each batch on both sides."""
        return self.frame("timings")

    @cached_property
    def anomalies(self) -> list[tuple[str, str]]:
        """What makes the run untrustworthy: (kind, message)."""
        sides = self.run.manifest.get("sides", {}).values()
        loading = [("loading", text) for side in sides for text in side.get("anomalies", ())]
        found = self.frame("anomalies")
        return loading + list(zip(found["kind"], found["message"], strict=True))


def undefined(reason: str, confidence: float, n: int = 0) -> Interval:
    """An interval for what was not, or could not be, measured."""
    return Interval(None, None, None, confidence, n, 0, "none", reason=reason)
