"""Two sides that read a text in tokens of their own, against single passes in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evalharness.data.documents import Document, Text, read_texts, tokenize
from evalharness.data.windows import cut
from evalharness.errors import InputError
from evalharness.pair.side import Side
from evalharness.pair.texts.two_tokenizers import (
    Readings,
    left_out,
    measure_separately,
    read_by_both,
)
from evalharness.spec.suite import Suite
from tests.conftest import TEXT, tiny_tokenizer


def words() -> Any:
    """A tokenizer whose tokens are words, each of which may be anything."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate(["<unk>", *sorted(set(TEXT.split()))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def suite_of(folder: Path, rows: list[dict[str, str]], **more: Any) -> Suite:
    """A suite of one corpus, whose rows these are."""
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"name": "s", "corpora": [{"name": "c", "path": str(path)}], "window": {"tokens": 128}}
    return Suite.model_validate(given | {"tokenizers": "different"} | more)


def read(suite: Suite) -> tuple[list[Text], list[Document], Readings]:
    """The suite's texts, the reference's documents, and how both sides read them."""
    texts, _ = read_texts(suite)
    documents = tokenize(texts, suite, tiny_tokenizer(), 300)
    windows = cut(documents, suite, None)
    options: dict[str, Any] = {"name": "cand", "tokenizer": words(), "vocab_size": 300}
    return texts, documents, read_by_both(documents, windows, texts, suite, **options)


def summed(side: Side, text: str) -> float:
    """NLL of all tokens of a text but the first, from one pass in float64."""
    ids = torch.tensor([side.loaded.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        log_p = side.model.double()(ids).logits[0].log_softmax(-1)
    side.model.float()
    return -float(log_p[:-1].gather(1, ids[0, 1:, None]).sum())


def test_namesakes_are_measured_each_on_its_own_text(
    side: Callable[..., Any], tmp_path: Path
) -> None:
    """Three documents of one name: three texts, with their own bytes and likelihoods."""
    rows = [{"id": "same", "text": TEXT[i : 60 + 9 * i]} for i in (0, 4, 30)]
    suite = suite_of(tmp_path, [*rows, {"id": "other", "text": TEXT[10:70]}])
    texts, documents, readings = read(suite)
    reference = side()
    candidate = Side(replace(side(1).loaded, tokenizer=words()))
    table = measure_separately(reference, candidate, range(len(documents)), readings)
    found = {row["doc"]: row for row in table["documents"].to_pylist()}
    assert len({t.text for t in texts}) == 4
    assert [found[n]["id"] for n in range(4)] == [t.id for t in texts]
    for number, text in enumerate(t.text or "" for t in texts):
        row = found[number]
        assert row["nll_ref"] == pytest.approx(summed(reference, text), rel=1e-5)
        assert row["nll_cand"] == pytest.approx(summed(candidate, text), rel=1e-5)
        first = len(text.split()[0])
        assert row["bytes_cand"] == len(text.rstrip()) - first - text.index(text.split()[0])


def test_what_is_too_short_for_one_side_is_left_out_of_both(tmp_path: Path) -> None:
    """One word is many of the reference's tokens, and no prediction of the candidate's."""
    rows = [{"text": TEXT[:50]}, {"text": "Pneumonoultramicroscopic"}, {"text": TEXT[20:90]}]
    texts, documents, readings = read(suite_of(tmp_path, rows))
    assert len(documents) == 3
    short = next(d.number for d in documents if " " not in (texts[d.text].text or ""))
    assert set(readings) == {0, 1, 2} - {short}
    assert left_out(documents, readings, "cand") == [
        "1 document is too short to score in the tokens of cand, and left out of both sides"
    ]
    assert left_out(documents[:2], {n: readings[n] for n in readings if n > 5}, "cand") == [
        "2 documents are too short to score in the tokens of cand, and left out of both sides"
    ]


def test_a_corpus_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    """With the lengths that the candidate sees."""
    suite = suite_of(tmp_path, [{"text": "Pneumonoultramicroscopic"}, {"text": "vexingly"}])
    with pytest.raises(InputError) as caught:
        read(suite)
    assert str(caught.value) == (
        "corpora.c: corpus 'c' has no document of 2 tokens or more as cand reads it (longest: 1). "
        "Shorten window.tokens or min_tokens, or give longer documents."
    )


def test_ids_are_of_one_tokenizer(tmp_path: Path) -> None:
    """Two cannot read them."""
    corpus = {"name": "ids", "tokens": str(tmp_path / "ids.jsonl")}
    with pytest.raises(ValueError, match="'ids' is token ids, which two tokenizers cannot both"):
        suite_of(tmp_path, [], corpora=[corpus])
