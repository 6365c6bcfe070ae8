"""Bits per byte for two models with different tokenizers: each reads the same text its own way."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import torch

from evalharness.data.documents import Document, Text, bos_token, tokenize
from evalharness.data.windows import batches, cut
from evalharness.pair.side import Side, chunks
from evalharness.pair.texts.token_pass import document_row, scored_bytes
from evalharness.run import records
from evalharness.spec.suite import Suite


def measure_separately(
    reference: Side, candidate: Side, documents: list[Document], texts: list[Text], suite: Suite
) -> dict[str, pa.Table]:
    """Document records of one block; ``documents`` are tokenised by the reference."""
    by_id = {(t.corpus, t.id): t for t in texts}
    rows = []
    for document in documents:
        text = by_id[document.corpus, document.id]
        nll_ref, bytes_ref, scored, windows = _nll(reference, text, suite)
        nll_cand, bytes_cand, _, _ = _nll(candidate, text, suite)
        rows.append(
            document_row(document, windows, scored)
            | {
                "nll_ref": nll_ref,
                "nll_cand": nll_cand,
                "bytes_ref": bytes_ref,
                "bytes_cand": bytes_cand,
            }
        )
    return {"documents": pa.Table.from_pylist(rows, schema=records.DOCUMENTS)}


@torch.inference_mode()
def _nll(side: Side, text: Text, suite: Suite) -> tuple[float, int, int, list[Any]]:
    """Summed NLL, bytes and number of the scored tokens of one text, and its windows."""
    tokenizer = side.loaded.tokenizer
    own = suite.model_copy(
        update={"corpora": tuple(c for c in suite.corpora if c.name == text.corpus)}
    )
    document = tokenize([text], own, tokenizer, side.vocab_size)[0]
    windows = cut([document], own, bos_token(tokenizer))
    total = 0.0
    for batch in batches(windows, 1):
        window = batch[0]
        ids = side.ids([window])
        hidden = side.hidden(ids)[0, window.first : window.last]
        target = ids[0, window.first + 1 : window.last + 1]
        for piece in chunks(len(target), 256):
            z = side.logits(hidden[piece]).float()
            total += float(torch.nn.functional.cross_entropy(z, target[piece], reduction="sum"))
    return total, scored_bytes(document, windows), sum(s.scored for s in windows), windows
