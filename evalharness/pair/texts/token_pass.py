"""The pass over texts: both models, the same batches, every metric from one look at the logits.

For each block of documents: windows are batched; each model's backbone runs; then, in chunks of
scored positions, both heads and `token_statistics`. What leaves the device is a few numbers a
token. Windows that the layer probe samples go through both backbones in lock-step.

Both models are launched before either is waited for, so that two devices work at the same time.
When memory runs out, the block is begun again with half the batch, then with half the chunk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor, nn

from evalharness.data.documents import Document
from evalharness.data.windows import Window, batches, longest, padded
from evalharness.engines.out_of_memory import is_out_of_memory
from evalharness.errors import RunError, plural
from evalharness.pair.clock import Clock
from evalharness.pair.faults import OutOfMemoryError, first_nonfinite, free_memory, looked_into
from evalharness.pair.lockstep import lockstep
from evalharness.pair.matching import match
from evalharness.pair.side import Side, chunks, default_chunk
from evalharness.pair.texts.hidden_cache import HiddenCache
from evalharness.pair.texts.statistics import token_statistics
from evalharness.pair.texts.statistics_partial import partial_statistics
from evalharness.pair.watcher import Watcher
from evalharness.run import records

CONTEXT_TOKENS = 24  # tokens shown before and after an extreme
EXTREMES = 12  # kept a block and criterion
SMALLEST_CHUNK = 16  # scored positions


class TokenPass:
    """Measures blocks of windows on both sides of a pair."""

    def __init__(
        self,
        reference: Side,
        candidate: Side,
        documents: list[Document],
        *,
        batch_size: int,
        probe: Watcher | None,
        cache: HiddenCache | None = None,
        chunk: int | None = None,
        compiled: bool = False,
        progress: Callable[[int], None] = lambda tokens: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.reference, self.candidate = reference, candidate
        self.documents, self.batch_size = documents, batch_size
        self.probe, self.cache = probe, cache
        self.progress, self.say = progress, say
        self.compiled = compiled  # see `statistics.worth_compiling`
        self.chunk = chunk or default_chunk(candidate.device, candidate.vocab_size)
        # On two devices: the head on the candidate's, and the blocks that take turns. A device's
        # queue holds some 1,000 kernels, so that one model after the other would keep the second
        # device waiting; two threads would wait for Python's lock.
        self.head_there = reference.head_on(candidate.device)
        self.in_turn: list[tuple[nn.Module, nn.Module]] = []
        if reference.device != candidate.device and not reference.released:
            pairs, _ = match(reference.model, candidate.model)
            self.in_turn = [(p.reference, p.candidate) for p in pairs if p.kind == "block"]

    @torch.inference_mode()
    def run(self, block: list[Window]) -> dict[str, pa.Table]:
        """All records of one block; raises `OutOfMemoryError` where not even one window fits."""
        counted = 0

        def count(tokens: int) -> None:
            nonlocal counted
            counted += tokens
            self.progress(tokens)

        with self._device():
            while True:
                try:
                    return self._run(block, count)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    self._halve(str(error))
                # Out of the handler nothing holds on to the failed batch's tensors any more.
                count(-counted)
                free_memory(self.reference.device)
                free_memory(self.candidate.device)

    def remember(self, block: list[Window]) -> None:
        """Put the reference's hidden states of a block into the cache, where they are not there."""
        assert self.cache is not None
        for batch in batches(block, self._size(block)):
            if not self.cache.has(batch):
                ids, row, col = _laid_out(batch)
                hidden = self.reference.hidden(torch.from_numpy(ids).to(self.reference.device))
                scored = torch.from_numpy(row * ids.shape[1] + col).to(hidden.device)
                self.cache.put(batch, hidden.flatten(0, 1)[scored])
                if self.cache.full:
                    raise RunError(
                        f"{self.cache.folder} cannot hold the reference's hidden states, through "
                        "which models that do not fit together are compared. Free some space, or "
                        "set EVALHARNESS_CACHE to a directory on another disk"
                    )

    def _device(self) -> Any:
        """Kernels of our own run where the candidate is."""
        device = self.candidate.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    def _halve(self, error: str) -> None:
        # Entries of the cache are batches: without a live reference those must stay as they are.
        if self.batch_size > 1 and not self.reference.released:
            self.batch_size //= 2
        elif self.chunk > SMALLEST_CHUNK:
            self.chunk //= 2
        else:
            why = error.splitlines()[0] if error else "MemoryError"
            raise OutOfMemoryError(
                f"out of memory on {self.candidate.device} with "
                f"{plural(self.batch_size, 'window')} at a time ({why}). Use shorter or fewer "
                "windows at a time, a smaller dtype or a larger device"
            )
        self.say(
            f"out of memory: continuing with {plural(self.batch_size, 'window')} at a time and "
            f"the logits of {self.chunk} positions"
        )

    def _run(self, block: list[Window], count: Callable[[int], None]) -> dict[str, pa.Table]:
        numbers = sorted({s.document for s in block})
        if self.probe is not None:
            self.probe.begin(numbers)
        rows: dict[str, list[np.ndarray[Any, Any]]] = defaultdict(list)
        clocks: list[tuple[int, Clock, Clock]] = []
        for batch in batches(block, self._size(block)):
            clock = (Clock(self.reference.device), Clock(self.candidate.device))
            for name, values in self._batch(batch, numbers, clock).items():
                rows[name].append(values)
            tokens = sum(len(s.ids) for s in batch)
            # Lock-step would time both at once, and states from the cache take no time.
            if clock[0].used:
                clocks.append((tokens, *clock))
            count(tokens)
        table = pd.DataFrame({k: np.concatenate(v) for k, v in rows.items()})
        table = table.sort_values(["window", "position"], kind="stable", ignore_index=True)
        tables = {
            "anomalies": self._anomalies(table, block),
            "contexts": self._contexts(table, block),
            "tokens": pa.Table.from_pandas(
                table[records.TOKENS.names], schema=records.TOKENS, preserve_index=False
            ),
            "documents": self._documents(table, block),
            "timings": pa.Table.from_pylist(
                [
                    {
                        "kind": "prefill",
                        "tokens": n,
                        "seconds_ref": a.seconds(),
                        "seconds_cand": b.seconds(),
                    }
                    for n, a, b in clocks
                ],
                schema=records.TIMINGS,
            ),
        }
        if self.probe is not None:
            tables |= self.probe.tables()
        return tables

    def _size(self, block: list[Window]) -> int:
        """Windows a batch: one where a row depends on the rows beside it."""
        sides = [self.reference]
        if not self.reference.released:  # else batches are those that `remember` has made
            sides.append(self.candidate)
        alone = any(s.alone_because(longest(block)) is not None for s in sides)
        return 1 if alone else self.batch_size

    def _batch(
        self, batch: list[Window], numbers: list[int], clock: tuple[Clock, Clock]
    ) -> dict[str, np.ndarray[Any, Any]]:
        ids, row, col = _laid_out(batch)
        width = ids.shape[1]
        docs = np.full((len(batch), width), -1, np.int64)
        for i, s in enumerate(batch):
            docs[i, : len(s.ids)] = numbers.index(s.document)
        ref, cand = self.reference, self.candidate
        ids_cand = torch.from_numpy(ids).to(cand.device)
        docs_BT = torch.from_numpy(docs).to(cand.device)
        at_BT = torch.arange(width, device=cand.device).expand(len(batch), width)
        probed = batch[0].probed and self.probe is not None
        cache = None if probed else self.cache
        kept_NC = None if cache is None else cache.get(batch)
        if probed or kept_NC is not None or ref.streams or cand.streams:
            # An engine of its own process computes ahead while nobody waits.
            clock = (Clock(ref.device), Clock(cand.device))
        target = ids[row, col + 1]
        # Moved before there is work to wait for.
        scored = torch.from_numpy(row * width + col)  # places in the flattened batch
        at_cand, target_N = scored.to(cand.device), torch.from_numpy(target).to(cand.device)
        at_ref = at_cand.to(ref.device)
        h_ref: Tensor | None = None
        if probed:
            assert self.probe is not None
            h_ref, h_cand = self.probe.run(
                torch.from_numpy(ids).to(ref.device), ids_cand, docs_BT, at_BT
            )
        else:
            if kept_NC is None and ref.released:
                raise RunError(
                    "an entry that was just written is gone from the cache of hidden states"
                )
            ids_ref = None if kept_NC is not None else torch.from_numpy(ids).to(ref.device)
            h_ref, h_cand = self._hidden(ids_ref, ids_cand, [len(s.ids) for s in batch], clock)

        if h_ref is not None and (cache is not None or self.head_there is not None):
            kept_NC = h_ref.flatten(0, 1)[at_ref]
            if cache is not None:
                cache.put(batch, kept_NC)
        if kept_NC is not None and self.head_there is not None:
            kept_NC = kept_NC.to(cand.device)
        parts: list[dict[str, Tensor]] = []
        for piece in chunks(len(row), self.chunk):
            if kept_NC is not None:
                h_ref_NC = kept_NC[piece]
            else:
                assert h_ref is not None
                h_ref_NC = h_ref.flatten(0, 1)[at_ref[piece]]
            with clock[0].running(h_ref_NC.device):
                z_ref = (self.head_there or ref.logits)(h_ref_NC)
            z_ref = z_ref.to(cand.device)
            at = at_cand[piece]
            with clock[1].running():
                h_NC = h_cand.flatten(0, 1)[at]
                z_cand = cand.logits(h_NC)
            if cand.top_logprobs:
                parts.append(partial_statistics(z_ref, z_cand, target_N[piece]))
            else:
                parts.append(
                    token_statistics(z_ref, z_cand, target_N[piece], compiled=self.compiled)
                )
            if probed:
                assert self.probe is not None
                docs_N, at_N = docs_BT.flatten()[at], at_BT.flatten()[at]
                self.probe.add_head(z_ref, z_cand, docs_N, at_N, h_NC)
        values = {k: torch.cat([p[k] for p in parts]).cpu().numpy() for k in parts[0]}
        starts = np.array([s.start for s in batch])
        return {
            "doc": np.array([s.document for s in batch], np.int32)[row],
            "window": np.array([s.number for s in batch], np.int32)[row],
            "position": (starts[row] + col + 1).astype(np.int32),
            "token": target.astype(np.int32),
            **values,
        }

    def _hidden(
        self,
        ids_ref: Tensor | None,
        ids_cand: Tensor,
        lengths: list[int],
        clock: tuple[Clock, Clock],
    ) -> tuple[Tensor | None, Tensor]:
        """Both sides' hidden states; the reference's are None where they are not asked for."""

        def reference() -> Tensor:
            assert ids_ref is not None
            with clock[0].running():
                return self.reference.hidden(ids_ref, lengths)

        def candidate() -> Tensor:
            side = self.candidate
            with clock[1].running():
                if len(lengths) > 1 and side.alone_because(max(lengths)) is not None:
                    return side.hidden_alone(ids_cand, lengths)  # the batch is the cache's
                return side.hidden(ids_cand, lengths)

        if ids_ref is None:
            return None, candidate()
        if not self.in_turn:
            return reference(), candidate()
        return lockstep(reference, candidate, self.in_turn, _unwatched, _unwatched)

    def _documents(self, table: pd.DataFrame, block: list[Window]) -> pa.Table:
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
                | {
                    "nll_ref": row.nll_ref,
                    "nll_cand": row.nll_cand,
                    "bytes_ref": text_bytes,
                    "bytes_cand": text_bytes,
                }
            )
        return pa.Table.from_pylist(rows, schema=records.DOCUMENTS)

    def _anomalies(self, table: pd.DataFrame, block: list[Window]) -> pa.Table:
        rows = []
        for key, side in (("ref", self.reference), ("cand", self.candidate)):
            bad = table[table[f"bad_{key}"]]
            if len(bad):
                first = bad.iloc[0]
                document = self.documents[int(first["doc"])]
                ids = next(s.ids for s in block if s.number == first["window"])
                module = first_nonfinite(side, ids) if looked_into(side) else None
                rows.append(
                    {
                        "kind": "nonfinite logits",
                        "message": f"{side.loaded.name}: NaN or Inf logits at {len(bad)} "
                        f"positions; first in document {document.corpus}/{document.id}, window "
                        f"{first['window']}, position {first['position']}"
                        + (f"; the first module that yields any is {module}" if module else ""),
                    }
                )
        return pa.Table.from_pylist(rows, schema=records.ANOMALIES)

    def _contexts(self, table: pd.DataFrame, block: list[Window]) -> pa.Table:
        """The block's most extreme tokens, each with its text around it."""
        good = table[~(table["bad_ref"] | table["bad_cand"])]
        decode = self.reference.loaded.tokenizer.decode
        rows = []
        for by in ("kl", "half_range", "max_abs", "nll"):
            value = (good["nll_cand"] - good["nll_ref"]).abs() if by == "nll" else good[by]
            largest = value.dropna().nlargest(EXTREMES)
            for size, row in zip(largest, good.loc[largest.index].to_dict("records")):
                ids, at = self.documents[int(row["doc"])].tokens, int(row["position"])
                rows.append(
                    {
                        "by": by,
                        "value": float(size),
                        "doc": int(row["doc"]),
                        "position": at,
                        "before": decode(ids[max(0, at - CONTEXT_TOKENS) : at]),
                        "token": decode(ids[at : at + 1]),
                        "after": decode(ids[at + 1 : at + 1 + CONTEXT_TOKENS]),
                        "reference_top": decode([int(row["argmax_ref"])]),
                        "candidate_top": decode([int(row["argmax_cand"])]),
                        "p_reference": float(np.exp(-row["nll_ref"])),
                        "p_candidate": float(np.exp(-row["nll_cand"])),
                    }
                )
        return pa.Table.from_pylist(rows, schema=records.CONTEXTS)


def _unwatched(*_: Any) -> None:
    """Let a block of `lockstep` pass."""


def _laid_out(batch: list[Window]) -> tuple[Any, Any, Any]:
    """Ids (B, T), zero-padded on the right; row and column of every scored position."""
    row = np.concatenate([np.full(s.scored, i) for i, s in enumerate(batch)])
    col = np.concatenate([np.arange(s.first, s.last) for s in batch])
    return padded(batch), row, col


def document_row(document: Document, windows: list[Window], scored: int) -> dict[str, Any]:
    """The columns of `records.DOCUMENTS` that need no model."""
    import json

    return {
        "doc": document.number,
        "corpus": document.corpus,
        "id": document.id,
        "attributes": json.dumps(document.attributes, sort_keys=True),
        "tokens": max((s.start + len(s.ids) for s in windows), default=0),
        "scored_tokens": scored,
    }


def scored_bytes(document: Document, windows: list[Window]) -> int:
    """UTF-8 bytes of the text whose tokens are scored; −1 where the text is not known."""
    ends = document.byte_ends
    if ends is None:
        return -1
    # The logits first … last − 1 of a window predict the places start + first + 1 … start + last.
    return int(sum(ends[s.start + s.last + 1] - ends[s.start + s.first + 1] for s in windows))
