"""The text that a candidate was calibrated on, where its manifest names it."""

from __future__ import annotations

from typing import Any

from evalharness.data.documents import Document, Text, bos_token, read_texts, tokenize
from evalharness.data.windows import Window, cut
from evalharness.spec.model import ModelSpec, is_text_file
from evalharness.spec.suite import Corpus, Suite

NAME = "calibration"


def calibration_texts(candidate: ModelSpec, suite: Suite) -> list[Text]:
    """Read it; empty where none is named."""
    path = candidate.manifest.calibration_data
    if not is_text_file(path):
        return []
    return read_texts(_suite(suite, str(path)))[0]


def calibration_windows(
    texts: list[Text], candidate: ModelSpec, suite: Suite, tokenizer: Any, vocab_size: int
) -> list[Window]:
    """Its windows, tokenised by the reference."""
    if not texts:
        return []
    own = _suite(suite, str(candidate.manifest.calibration_data))
    documents: list[Document] = tokenize(texts, own, tokenizer, vocab_size)
    return cut(documents, own, bos_token(tokenizer))


def _suite(suite: Suite, path: str) -> Suite:
    return suite.model_copy(update={"corpora": (Corpus(name=NAME, path=path),)})
