"""Rows of the vocabulary that no token has: a model may mask them, and nothing is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from evalharness.data.documents import Document
from evalharness.data.windows import cut
from evalharness.pair.side import Side
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.spec.suite import Suite


def masking(side: Side, rows: int) -> Side:
    """The same model, whose head gives −∞ from row ``rows`` on."""
    head = side.head
    bias = torch.zeros(head.out_features)
    bias[rows:] = -torch.inf
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
    return Side(side.loaded)


@pytest.mark.parametrize("masked", ["both", "candidate"])
def test_masked_padding_is_no_anomaly(
    masked: str, side: Callable[..., Any], documents: list[Document], suite: Suite
) -> None:
    """KL is that of the rows that are said."""
    plain, tokens = side(vocab_size=320), len(side(vocab_size=320).loaded.tokenizer)
    reference = masking(plain, tokens) if masked == "both" else plain
    candidate = masking(side(bits=4, vocab_size=320), tokens)
    assert candidate.masked_from == tokens
    block = cut(documents, suite, None)
    tables = TokenPass(reference, candidate, documents, batch_size=3, probe=None).run(block)
    assert len(tables["anomalies"]) == 0
    frame = tables["tokens"].to_pandas()
    assert frame["kl"].notna().all()
    if masked == "both":
        ids = candidate.ids(block[:1])
        z, w = (s.logits(s.hidden(ids)[0])[:-1, :tokens] for s in (reference, candidate))
        p, q = z.double().log_softmax(-1), w.double().log_softmax(-1)
        kl = (p.exp() * (p - q)).sum(-1)
        own = frame[frame["window"] == 0].sort_values("position")["kl"].to_numpy()
        torch.testing.assert_close(torch.tensor(own).double(), kl, atol=1e-5, rtol=1e-4)


def test_an_infinity_among_real_rows_stays_one(
    side: Callable[..., Any], documents: list[Document], suite: Suite
) -> None:
    """Only what no token has may be masked."""
    plain = side(vocab_size=320)
    broken = masking(side(vocab_size=320), len(plain.loaded.tokenizer) - 1)
    tables = TokenPass(plain, broken, documents, batch_size=3, probe=None).run(
        cut(documents, suite, None)
    )
    assert len(tables["anomalies"]) == 1
