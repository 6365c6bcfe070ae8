"""Bits per byte for two models with different tokenizers: each reads the same text its own way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from evalharness.data.documents import Document, Text, bos_token, tokenize
from evalharness.data.windows import Window, batches, by_document, cut
from evalharness.errors import InputError, plural
from evalharness.pair.side import Side, chunks
from evalharness.pair.texts.token_pass import document_row, scored_bytes
from evalharness.run import records
from evalharness.spec.suite import Suite


@dataclass(frozen=True)
class Reading:
    """A document as one side reads it."""

    document: Document
    windows: list[Window]

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text whose tokens are scored; −1 where they are not known."""
        return scored_bytes(self.document, self.windows)

    @property
    def says_something(self) -> bool:
        """Whether any of the text is scored."""
        return bool(self.windows) and self.bytes != 0


Readings = dict[int, tuple[Reading, Reading]]  # reference and candidate, by document number


def read_by_both(
    documents: Sequence[Document],
    windows: Iterable[Window],
    texts: Sequence[Text],
    suite: Suite,
    *,
    name: str,
    tokenizer: Any,
    vocab_size: int,
) -> Readings:
    """How both sides read each document; without those too short for either to be scored on.

    Parameters
    ----------
    documents, windows : of ``texts``, by the reference's tokenizer.
    name, tokenizer, vocab_size : the candidate's.

    Raises
    ------
    InputError : nothing is left of a corpus.

    """
    ours = by_document(windows)
    own = tokenize([texts[d.text] for d in documents], suite, tokenizer, vocab_size, reader=name)
    theirs = by_document(cut(own, suite, bos_token(tokenizer)))
    found: Readings = {}
    for document in own:
        first = documents[document.text]
        pair = (
            Reading(first, ours.get(first.number, [])),
            Reading(document, theirs.get(document.number, [])),
        )
        if all(side.says_something for side in pair):
            found[first.number] = pair
    for corpus in suite.corpora:
        if not any(pair[0].document.corpus == corpus.name for pair in found.values()):
            raise InputError(
                f"no document of corpus {corpus.name!r} is long enough to be scored on both sides, "
                "each by its own tokens",
                key=f"corpora.{corpus.name}",
                remedy="Give longer documents.",
            )
    return found


def left_out(documents: Sequence[Document], readings: Readings, name: str) -> list[str]:
    """What is to be said of documents that are too short for the candidate, called ``name``."""
    missing = len(documents) - len(readings)
    if not missing:
        return []
    are = f"{plural(missing, 'document')} {'are' if missing > 1 else 'is'}"
    return [f"{are} too short to score in the tokens of {name}, and left out of both sides"]


def measure_separately(
    reference: Side, candidate: Side, numbers: Iterable[int], readings: Readings
) -> dict[str, pa.Table]:
    """Document records of the documents of one block that both sides read."""
    rows = []
    for number in sorted(set(numbers) & readings.keys()):
        ours, theirs = readings[number]
        scored = sum(s.scored for s in ours.windows)
        rows.append(
            document_row(ours.document, ours.windows, scored)
            | {
                "nll_ref": _nll(reference, ours.windows),
                "nll_cand": _nll(candidate, theirs.windows),
                "bytes_ref": ours.bytes,
                "bytes_cand": theirs.bytes,
            }
        )
    return {"documents": pa.Table.from_pylist(rows, schema=records.DOCUMENTS)}


@torch.inference_mode()
def _nll(side: Side, windows: list[Window]) -> float:
    """Summed NLL of the scored tokens of one document."""
    total = 0.0
    for batch in batches(windows, 1):
        window = batch[0]
        ids = side.ids([window])
        hidden = side.hidden(ids)[0, window.first : window.last]
        target = ids[0, window.first + 1 : window.last + 1]
        for piece in chunks(len(target), 256):
            z = side.logits(hidden[piece]).float()
            total += float(torch.nn.functional.cross_entropy(z, target[piece], reduction="sum"))
    return total
