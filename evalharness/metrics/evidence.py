"""The records of one run as arrays, with one partition into documents that feeds every interval."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from evalharness.metrics.registry import Scope
from evalharness.run import Run
from evalharness.stats import Interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """The token records within a scope; ``doc`` is each row's cluster."""

    evidence: Evidence
    mask: npt.NDArray[np.bool_] | None

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column, (N,)."""
        values = self.evidence.column(name)
        return values if self.mask is None else values[self.mask]

    @property
    def doc(self) -> npt.NDArray[np.int64]:
        """Cluster of each row, (N,)."""
        return self.column("doc")

    def sums(self, values: npt.NDArray[Any]) -> tuple[Floats, Floats]:
        """Per-document totals of ``values`` and numbers of rows, (G,) each."""
        size = len(self.evidence.documents)
        doc = self.doc
        return (
            np.bincount(doc, values.astype(np.float64, copy=False), size),
            np.bincount(doc, minlength=size).astype(np.float64),
        )

    def bad(self, *columns: str) -> str | None:
        """Why these columns cannot be used: how many rows are NaN or infinite. None: they can."""
        for name in columns:
            values = self.column(name)
            count = int(np.count_nonzero(~np.isfinite(values)))
            if count:
                return f"{count} of {len(values)} positions have NaN or infinite {name}"
        return None

    def place(self, row: int) -> str:
        """Row ``row`` in words: its document and position."""
        document = self.evidence.documents.iloc[int(self.doc[row])]
        return f"{document['corpus']}/{document['id']} position {self.column('position')[row]}"


class Evidence:
    """Lazily read records of a run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.slices: list[dict[str, Any]] = run.manifest.get("suite", {}).get("slices", [])
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self._masks: dict[str, npt.NDArray[np.bool_] | None] = {}

    @cached_property
    def documents(self) -> pd.DataFrame:
        """Documents in cluster order; row i is cluster i."""
        table = self.run.table("documents").to_pandas().sort_values("doc", ignore_index=True)
        if len(table) and list(table["doc"]) != list(range(len(table))):
            # A run that stopped early, or a document whose windows score nothing: keep the codes.
            table = table.set_index("doc").reindex(range(int(table["doc"].max()) + 1)).reset_index()
        return table

    @cached_property
    def _tokens(self) -> pa.Table:
        return self.run.table("tokens")

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of the token records; floats come as float64."""
        if name not in self._columns:
            values = self._tokens[name].to_numpy()
            kind = np.float64 if values.dtype.kind == "f" else np.int64
            self._columns[name] = values.astype(kind)
        return self._columns[name]

    @property
    def has_tokens(self) -> bool:
        """Whether any token was scored on both sides."""
        return self._tokens.num_rows > 0

    def tokens(self, scope: Scope) -> View:
        """The token records within ``scope``."""
        key = json.dumps(scope, sort_keys=True)
        if key not in self._masks:
            chosen = self.in_scope(scope)
            self._masks[key] = None if chosen is None else chosen[self.column("doc")]
        return View(self, self._masks[key])

    def in_scope(self, scope: Scope) -> npt.NDArray[np.bool_] | None:
        """Which documents ``scope`` takes, (G,); None: all."""
        if not scope:
            return None
        if "corpus" in scope:
            return np.asarray(self.documents["corpus"] == scope["corpus"], dtype=bool)
        where = next(s["where"] for s in self.slices if s["name"] == scope["slice"])
        return np.array([_matches(d, where) for d in self.documents.to_dict("records")], bool)

    @cached_property
    def items(self) -> pd.DataFrame:
        """Task items, one row an item and lm-eval metric."""
        return self.run.table("items").to_pandas()

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """lm-eval's aggregates."""
        return self.run.table("tasks").to_pandas()

    @cached_property
    def layers(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Layer records by (error, layer), in the order of the model."""
        table = self.run.table("layers")
        if not table.num_rows:
            return {}
        frame = table.to_pandas()
        return {
            (str(e), str(n)): g for (e, n), g in frame.groupby(["error", "layer"], sort=False)
        }

    @cached_property
    def unmatched(self) -> list[str]:
        """Modules of either side that have no counterpart."""
        matching = self.run.manifest.get("matching") or {}
        return [*matching.get("unmatched_reference", []), *matching.get("unmatched_candidate", [])]

    @cached_property
    def timings(self) -> pd.DataFrame:
        """Seconds of each batch on both sides."""
        return self.run.table("timings").to_pandas()

    @cached_property
    def anomalies(self) -> list[tuple[str, str]]:
        """What makes the run untrustworthy: (kind, message)."""
        table = self.run.table("anomalies")
        return [
            (str(k), str(m))
            for k, m in zip(
                table["kind"].to_pylist(), pc.cast(table["message"], pa.string()).to_pylist(),
                strict=True,
            )
        ]  # fmt: skip


def undefined(reason: str, confidence: float, n: int = 0) -> Interval:
    """An interval for what was not, or could not be, measured."""
    return Interval(None, None, None, confidence, n, 0, "none", reason=reason)


# -- the scopes a family of metrics has


def text_scopes(evidence: Evidence) -> list[Scope]:
    """Everything, each corpus, each slice."""
    if not evidence.has_tokens:
        return []
    names = list(dict.fromkeys(evidence.documents["corpus"].dropna()))
    scopes: list[Scope] = [{}]
    scopes += [{"corpus": str(n)} for n in names] if len(names) > 1 else []
    return scopes + [{"slice": str(s["name"])} for s in evidence.slices]


TEXT_KEYS = ("corpus", "slice")


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


def _matches(document: dict[str, Any], where: dict[str, str]) -> bool:
    attributes = {"corpus": document["corpus"], "id": document["id"]}
    if isinstance(document["attributes"], str):
        attributes |= json.loads(document["attributes"])
    return all(fnmatch.fnmatchcase(str(attributes.get(k, "")), v) for k, v in where.items())
