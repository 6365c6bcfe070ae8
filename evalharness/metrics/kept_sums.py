"""Estimates while blocks come in: sums by document are kept, so that no record is read twice.

A block holds whole documents, so that the sums of all documents are those of one block after the
other: what is estimated is what the records of all blocks together would give, to the last bit.
Documents that hold the same text are one cluster, whatever blocks they are in: their rows are kept
and added up anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from evalharness.metrics.clusters import Keys
from evalharness.metrics.estimates import Estimates
from evalharness.metrics.evidence import Evidence, Floats, undefined
from evalharness.metrics.layer_rows import LayerRows
from evalharness.metrics.not_finite import Where, not_finite
from evalharness.metrics.registry import Measured, Metric, Totals
from evalharness.run.directory import InMemory, Run
from evalharness.run.manifest import Manifest
from evalharness.run.part import Part
from evalharness.run.records import SCHEMAS
from evalharness.spec.estimate import Scope
from evalharness.spec.slices import Subset, subsets

Numbers = npt.NDArray[np.int64]

_BY_DOCUMENT = ("tokens", "documents")  # what metrics read that are sums over texts


class KeptSums(Evidence):
    """The evidence of the blocks that were added; each is read once, when it is first needed."""

    def __init__(self, run: Run) -> None:
        self._whole = run
        self._blocks: list[str] = []
        super().__init__(Part(run, self._blocks))
        self._sums: dict[tuple[str, str], _Sums] = {}
        self._tables: dict[str, pa.Table] = {}
        self._seen: Counter[str] = Counter()  # blocks that are in a table, or in what is kept
        self._corpora: dict[str, None] = {}
        self._none: dict[str, Numbers] = {}
        self._layers: dict[tuple[str, str], LayerRows] = {}
        self._keys: list[tuple[Numbers, Keys]] = []  # of each block, by number
        self._scored = False
        self._open: dict[tuple[str, bool], Evidence] = {}
        self._repeats = _Repeats(run)

    def add(self, block: str) -> None:
        """Take in a block whose documents come after all before."""
        self._blocks.append(block)
        for name in ("documents", "_clusters", "_docs", "anomalies"):
            self.__dict__.pop(name, None)
        self._columns.clear()
        self._masks.clear()

    def _unseen(self, what: str) -> list[str]:
        """The blocks that were added since this was last asked."""
        first = self._seen[what]
        self._seen[what] = len(self._blocks)
        return self._blocks[first:]

    def close(self) -> None:
        """Let go of the blocks that were read."""
        self._open.clear()

    def _block(self, name: str, *, single: bool = False) -> Evidence:
        """The evidence of one block, whose documents count from 0; ``single``: no repeated text."""
        left_out = self._repeats.numbers if single else frozenset[int]()
        key = (name, bool(left_out))
        if key not in self._open:
            self._open[key] = Evidence(_Documents(Part(self._whole, [name]), left_out=left_out))
        return self._open[key]

    def totals(self, metric: Metric, scope: Scope) -> Totals:
        """``metric.totals`` over all blocks."""
        assert metric.totals is not None
        if metric.records not in _BY_DOCUMENT:
            return metric.totals(self, scope)
        kept = self._sums.setdefault((metric.id, json.dumps(scope, sort_keys=True)), _Sums())
        for name in self._blocks[kept.blocks :]:
            block = self._block(name, single=True)
            assert isinstance(block.run, _Documents)
            kept.add(metric, scope, block, block.run.numbers)
        repeated = self._repeats.numbers
        if not repeated:
            return kept.totals
        every, rest = replace(kept), self._repeats.evidence(self._blocks)
        every.add(metric, scope, rest, np.array(sorted(repeated)))
        return every.totals

    # -- what is read whole elsewhere

    def frame(self, name: str) -> pd.DataFrame:
        """All records of one kind."""
        news = Part(self._whole, self._unseen(name)).table(name)
        if name not in self._frames or len(news):
            known = self._tables.get(name, news.slice(0, 0))
            self._tables[name] = pa.concat_tables([known, news]).combine_chunks()
            self._frames[name] = pd.DataFrame(self._tables[name].to_pandas())
        return self._frames[name]

    def not_finite(self, kind: str, names: Sequence[str], where: Where) -> npt.NDArray[np.int64]:
        """Rows of one kind of record, and in how many each of these columns is not finite."""
        key = f"{kind} {names} {where}"
        news = Part(self._whole, self._unseen(key))
        found = self._none.get(key, 0) + not_finite(news, kind, names, where)
        self._none[key] = found
        return found

    @property
    def has_tokens(self) -> bool:
        """Whether any token was scored on both sides."""
        if not self._scored:
            self._scored = any(self._block(n).has_tokens for n in self._unseen("has tokens"))
        return self._scored

    @property
    def corpora(self) -> list[str]:
        """The corpora that documents are of, in the order of their first."""
        for name in self._unseen("corpora"):
            self._corpora |= dict.fromkeys(self._block(name).corpora)
        return list(self._corpora)

    @property
    def keys(self) -> Keys:
        """What each cluster's documents are, in the order of `totals`."""
        for name in self._unseen("keys"):
            block = self._block(name, single=True)
            assert isinstance(block.run, _Documents)
            self._keys.append((block.run.numbers[: len(block.keys)], block.keys))
        parts = list(self._keys)
        if self._repeats.numbers:
            rest = self._repeats.evidence(self._blocks)
            parts.append((np.array(sorted(self._repeats.numbers))[: len(rest.keys)], rest.keys))
        if not parts:
            return np.zeros(0, np.uint64)
        places, keys = (np.concatenate(column) for column in zip(*parts, strict=True))
        return keys[np.argsort(places, kind="stable")]

    @cached_property
    def slices(self) -> dict[str, Subset]:
        """The suite's slices by name, as the manifest has them."""
        return {s.name: s for s in subsets(self.run.manifest.get("slices", ()), ())}

    @property
    def layers(self) -> dict[tuple[str, str], LayerRows]:
        """The modules that were measured, with the rows of the first block that has them."""
        for name in self._unseen("modules"):
            for key, rows in self._block(name).layers.items():
                self._layers.setdefault(key, rows)
        return self._layers


class KeptEstimates(Estimates):
    """Estimates on kept sums; what has no sums has neither interval nor verdict, nor a value."""

    def __init__(self, evidence: KeptSums) -> None:
        super().__init__(evidence)
        self._kept = evidence

    def _totals(self, metric: Metric, scope: Scope) -> Totals:
        return self._kept.totals(metric, scope)

    def _bare(self, metric: Metric, scope: Scope, confidence: float, reason: str) -> Measured:
        return Measured(undefined(reason, confidence))


class _Documents:
    """The records of some documents of a run, which count from 0: their number costs nothing.

    Parameters
    ----------
    part : where they are.
    only, left_out : the numbers of those that are taken, and of those that are not; default: all.

    """

    def __init__(
        self, part: Part, *, only: Sequence[int] | None = None, left_out: Collection[int] = ()
    ) -> None:
        self.part = part
        numbers = only
        if numbers is None:
            found = part.table("documents", ["doc"])["doc"].to_numpy()
            every = range(int(found.min()), int(found.max()) + 1) if len(found) else range(0)
            numbers = [n for n in every if n not in left_out]
        self.numbers: Numbers = np.asarray(numbers, np.int64)

    @property
    def manifest(self) -> Manifest:
        """The run's; documents of one text by their numbers here."""
        own = {number: place for place, number in enumerate(self.numbers.tolist())}
        groups = [
            [own[n] for n in group if n in own]
            for group in self.part.manifest.get("same_text") or ()
        ]
        return {**self.part.manifest, "same_text": [g for g in groups if len(g) > 1]}

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """All rows of one kind of record."""
        wanted = columns if columns is None or "doc" in columns else ["doc", *columns]
        has_documents = "doc" in SCHEMAS[name].names
        table = self.part.table(name, wanted if has_documents else columns)
        if not has_documents or not len(self.numbers):
            return table.slice(0, 0) if has_documents else table
        found = table["doc"].to_numpy()
        places = np.minimum(np.searchsorted(self.numbers, found), len(self.numbers) - 1)
        taken = self.numbers[places] == found
        kind = SCHEMAS[name].field("doc")
        index = table.schema.get_field_index("doc")
        table = table.set_column(index, kind, pa.array(places, kind.type))
        table = table if taken.all() else table.filter(pa.array(taken))
        return table if columns is None else table.select(columns)


class _Repeats:
    """The documents whose text others hold as well, over all blocks; their rows are kept."""

    def __init__(self, run: Run) -> None:
        groups = run.manifest.get("same_text") or ()
        self.numbers = frozenset(number for group in groups for number in group)
        self._run, self._seen = run, 0
        self._tables: dict[str, pa.Table] = {}
        self._evidence: Evidence | None = None

    def evidence(self, blocks: Sequence[str]) -> Evidence:
        """Their records in ``blocks``, the first of which are those of before."""
        known, self._seen = self._seen, len(blocks)
        for block in blocks[known:]:
            own = _Documents(Part(self._run, [block]), only=sorted(self.numbers))
            for name in _BY_DOCUMENT:
                rows = own.table(name)
                if len(rows):
                    kept = self._tables.get(name, rows.slice(0, 0))
                    self._tables[name] = pa.concat_tables([kept, rows]).combine_chunks()
                    self._evidence = None
        if self._evidence is None:
            whole = _Documents(Part(self._run, ()), only=sorted(self.numbers))
            self._evidence = Evidence(InMemory(whole.manifest, self._tables))
        return self._evidence


@dataclass
class _Sums:
    """What `Totals` are, of so many blocks."""

    blocks: int = 0
    sums: Floats = field(default_factory=lambda: np.zeros(0))
    counts: Floats = field(default_factory=lambda: np.zeros(0))
    places: Floats = field(default_factory=lambda: np.zeros(0))  # numbers of the documents
    empty: str = ""  # why a block without a scored token has none
    wrong: str = ""  # why there are none, whatever comes

    def add(self, metric: Metric, scope: Scope, evidence: Evidence, numbers: Numbers) -> None:
        """Take in those of one more block, whose documents have these numbers in the run."""
        assert metric.totals is not None
        found = metric.totals(evidence, scope)
        self.blocks += 1
        if isinstance(found, str):
            if len(evidence.tokens(scope).column("doc")):
                self.wrong = self.wrong or found
                return
            self.empty = found
            found = np.zeros(len(evidence.documents)), np.zeros(len(evidence.documents))
        self.sums = np.concatenate([self.sums, found[0]])
        self.counts = np.concatenate([self.counts, found[1]])
        # Totals that leave documents out do not say which, and have no order to be kept.
        own = numbers[: len(found[0])] if len(found[0]) == len(evidence.documents) else None
        self.places = np.concatenate([self.places, np.zeros(len(found[0])) if own is None else own])

    @property
    def totals(self) -> Totals:
        """Of all blocks."""
        if self.wrong or (self.empty and not self.counts.any()):
            return self.wrong or self.empty
        order = np.argsort(self.places, kind="stable")
        return self.sums[order], self.counts[order]
