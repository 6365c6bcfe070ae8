"""The pass over texts: both models, the same batches, every token metric from one look at the logits.

For each block of documents: windows are batched; each model's backbone runs; then, in chunks of
scored positions, both heads and `token_statistics`. What leaves the device is a few numbers a
token. Windows that the layer probe samples go through both backbones in lock-step.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from evalharness import records
from evalharness.data.documents import Document
from evalharness.data.windows import Slot, batches
from evalharness.pair.side import Side, chunks
from evalharness.pair.statistics import token_statistics
from evalharness.probes.layers import LayerProbe

CONTEXT_TOKENS = 24  # tokens shown before and after an extreme
EXTREMES = 12  # kept a block and criterion


class TokenPass:
    """Measures blocks of windows on both sides of a pair."""

    def __init__(
        self,
        reference: Side,
        candidate: Side,
        documents: list[Document],
        *,
        batch_size: int,
        probe: LayerProbe | None,
        progress: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        self.reference, self.candidate = reference, candidate
        self.documents, self.batch_size = documents, batch_size
        self.probe, self.progress = probe, progress
        self.chunk = 1024 if candidate.device.type == "cuda" else 128

    @torch.inference_mode()
    def measure(self, block: list[Slot]) -> dict[str, pa.Table]:
        """All records of one block."""
        numbers = sorted({s.document for s in block})
        if self.probe is not None:
            self.probe.begin(numbers)
        rows: dict[str, list[np.ndarray[Any, Any]]] = defaultdict(list)
        clocks: list[tuple[int, _Clock, _Clock]] = []
        for batch in batches(block, self.batch_size):
            clock = (_Clock(self.reference.device), _Clock(self.candidate.device))
            for name, values in self._batch(batch, numbers, clock).items():
                rows[name].append(values)
            tokens = sum(len(s.ids) for s in batch)
            if not batch[0].probed:  # lock-step would time both at once
                clocks.append((tokens, *clock))
            self.progress(tokens)
        table = pd.DataFrame({k: np.concatenate(v) for k, v in rows.items()})
        table = table.sort_values(["window", "position"], kind="stable", ignore_index=True)
        tables = {
            "anomalies": self._anomalies(table),
            "contexts": self._contexts(table, block),
            "tokens": pa.Table.from_pandas(
                table[records.TOKENS.names], schema=records.TOKENS, preserve_index=False
            ),
            "documents": self._documents(table, block),
            "timings": pa.Table.from_pylist(
                [
                    {"kind": "prefill", "tokens": n, "seconds_ref": a.seconds(),
                     "seconds_cand": b.seconds()}
                    for n, a, b in clocks
                ],
                schema=records.TIMINGS,
            ),
        }  # fmt: skip
        if self.probe is not None:
            tables["layers"] = self.probe.table()
        return tables

    def _batch(
        self, batch: list[Slot], numbers: list[int], clock: tuple[_Clock, _Clock]
    ) -> dict[str, np.ndarray[Any, Any]]:
        width = max(len(s.ids) for s in batch)
        ids = np.zeros((len(batch), width), np.int64)
        slots = np.full((len(batch), width), -1, np.int64)
        for i, s in enumerate(batch):
            ids[i, : len(s.ids)] = s.ids
            slots[i, : len(s.ids)] = numbers.index(s.document)
        ref, cand = self.reference, self.candidate
        ids_ref = torch.from_numpy(ids).to(ref.device)
        ids_cand = torch.from_numpy(ids).to(cand.device)
        slots_BT = torch.from_numpy(slots).to(cand.device)
        at_BT = torch.arange(width, device=cand.device).expand(len(batch), width)
        probed = batch[0].probed and self.probe is not None
        if probed:
            assert self.probe is not None
            h_ref, h_cand = self.probe.run(ids_ref, ids_cand, slots_BT, at_BT)
        else:
            with clock[0].running():
                h_ref = ref.hidden(ids_ref)
            with clock[1].running():
                h_cand = cand.hidden(ids_cand)

        row = np.concatenate([np.full(s.scored, i) for i, s in enumerate(batch)])
        col = np.concatenate([np.arange(s.first, s.last) for s in batch])
        target = ids[row, col + 1]
        parts: list[dict[str, Tensor]] = []
        for piece in chunks(len(row), self.chunk):
            r, c = torch.from_numpy(row[piece]), torch.from_numpy(col[piece])
            with clock[0].running():
                z_ref = ref.logits(h_ref[r.to(ref.device), c.to(ref.device)])
            r, c = r.to(cand.device), c.to(cand.device)
            with clock[1].running():
                z_cand = cand.logits(h_cand[r, c])
            z_ref = z_ref.to(cand.device)
            parts.append(
                token_statistics(z_ref, z_cand, torch.from_numpy(target[piece]).to(cand.device))
            )
            if probed:
                assert self.probe is not None
                self.probe.add_head(z_ref, z_cand, slots_BT[r, c], at_BT[r, c])
        values = {k: torch.cat([p[k] for p in parts]).cpu().numpy() for k in parts[0]}
        starts = np.array([s.start for s in batch])
        return {
            "doc": np.array([s.document for s in batch], np.int32)[row],
            "window": np.array([s.number for s in batch], np.int32)[row],
            "position": (starts[row] + col + 1).astype(np.int32),
            "token": target.astype(np.int32),
            **values,
        }

    def _documents(self, table: pd.DataFrame, block: list[Slot]) -> pa.Table:
        sums = table.groupby("doc", sort=True).agg(
            scored_tokens=("nll_ref", "size"),
            nll_ref=("nll_ref", lambda x: x.astype("float64").sum(skipna=False)),
            nll_cand=("nll_cand", lambda x: x.astype("float64").sum(skipna=False)),
        )
        rows = []
        for number, row in sums.iterrows():
            document = self.documents[int(str(number))]
            own = [s for s in block if s.document == document.number]
            text_bytes = scored_bytes(document, own)
            rows.append(
                document_row(document, own, int(row.scored_tokens))
                | {"nll_ref": row.nll_ref, "nll_cand": row.nll_cand,
                   "bytes_ref": text_bytes, "bytes_cand": text_bytes}
            )  # fmt: skip
        return pa.Table.from_pylist(rows, schema=records.DOCUMENTS)

    def _anomalies(self, table: pd.DataFrame) -> pa.Table:
        rows = []
        for side, loaded in (("ref", self.reference.loaded), ("cand", self.candidate.loaded)):
            bad = table[table[f"bad_{side}"]]
            if len(bad):
                first = bad.iloc[0]
                document = self.documents[int(first["doc"])]
                rows.append({
                    "kind": "nonfinite logits",
                    "message": f"{loaded.name}: NaN or Inf logits at {len(bad)} positions; first in "
                    f"document {document.corpus}/{document.id}, window {first['window']}, position "
                    f"{first['position']}",
                })  # fmt: skip
        return pa.Table.from_pylist(rows, schema=records.ANOMALIES)

    def _contexts(self, table: pd.DataFrame, block: list[Slot]) -> pa.Table:
        """The block's most extreme tokens, each with its text around it."""
        good = table[~(table["bad_ref"] | table["bad_cand"])]
        decode = self.reference.loaded.tokenizer.decode
        rows = []
        for by in ("kl", "half_range", "max_abs", "nll"):
            value = (good["nll_cand"] - good["nll_ref"]).abs() if by == "nll" else good[by]
            for index in value.nlargest(EXTREMES).index:
                row = good.loc[index]
                ids = self.documents[int(row["doc"])].tokens
                at = int(row["position"])
                rows.append({
                    "by": by, "value": float(value[index]), "doc": int(row["doc"]), "position": at,
                    "before": decode(ids[max(0, at - CONTEXT_TOKENS) : at]),
                    "token": decode(ids[at : at + 1]),
                    "after": decode(ids[at + 1 : at + 1 + CONTEXT_TOKENS]),
                    "reference_top": decode([int(row["argmax_ref"])]),
                    "candidate_top": decode([int(row["argmax_cand"])]),
                    "p_reference": float(np.exp(-row["nll_ref"])),
                    "p_candidate": float(np.exp(-row["nll_cand"])),
                })  # fmt: skip
        return pa.Table.from_pylist(rows, schema=records.CONTEXTS)


def document_row(document: Document, slots: list[Slot], scored: int) -> dict[str, Any]:
    """The columns of `records.DOCUMENTS` that need no model."""
    import json

    return {
        "doc": document.number,
        "corpus": document.corpus,
        "id": document.id,
        "attributes": json.dumps(document.attributes, sort_keys=True),
        "tokens": max((s.start + len(s.ids) for s in slots), default=0),
        "scored_tokens": scored,
    }


def scored_bytes(document: Document, slots: list[Slot]) -> int:
    """UTF-8 bytes of the text whose tokens are scored; −1 where the text is not known."""
    ends = document.byte_ends
    if ends is None:
        return -1
    # The logits first … last − 1 of a window predict the places start + first + 1 … start + last.
    return int(sum(ends[s.start + s.last + 1] - ends[s.start + s.first + 1] for s in slots))


class _Clock:
    """Seconds a device spends in `running` blocks; on CUDA without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._marks: list[tuple[Any, Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        begin = self._mark()
        yield
        self._marks.append((begin, self._mark()))

    def _mark(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self) -> float:
        if not self.cuda:
            return float(sum(b - a for a, b in self._marks))
        torch.cuda.synchronize()
        return float(sum(a.elapsed_time(b) for a, b in self._marks)) / 1e3
