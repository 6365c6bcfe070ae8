"""Windows: what is fed, and which positions are scored."""

from __future__ import annotations

import numpy as np
import pytest

from evalharness.data.documents import Document
from evalharness.data.windows import Window, batches, blocks, cut, own_bos
from evalharness.spec.suite import Suite


def document(number: int, length: int) -> Document:
    return Document(number, "c", f"d{number}", np.arange(length) + 1, None, {})


def suite(score: str, tokens: int = 8, stride: int | None = None, **more: object) -> Suite:
    return Suite.model_validate(
        {
            "name": "s",
            "corpora": [{"name": "c", "source": "python:x"}],
            "window": {"tokens": tokens, "stride": stride, "score": score},
            **more,
        }
    )


def scored_places(windows: list[Window]) -> list[int]:
    """Document places of the tokens that are predicted and scored."""
    return [s.start + i + 1 for s in windows for i in range(s.first, s.last)]


def test_all_scores_every_token_but_a_windows_first() -> None:
    """20 tokens in windows of 8: the first of each window has no prediction."""
    windows = cut([document(0, 20)], suite("all"), None)
    assert [len(s.ids) for s in windows] == [8, 8, 4]
    assert scored_places(windows) == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19]


def test_new_scores_every_token_once_with_overlap() -> None:
    """With a stride of 4 each later window adds what it sees first."""
    windows = cut([document(0, 19)], suite("new", stride=4), None)
    assert scored_places(windows) == list(range(1, 19))
    assert [s.first for s in windows] == [0, 3, 3, 3]


def test_second_half_scores_logits_from_the_middle() -> None:
    """llama.cpp's rule: logits tokens/2 … tokens − 2."""
    windows = cut([document(0, 16)], suite("second_half"), None)
    assert [(s.first, s.last) for s in windows] == [(4, 7), (4, 7)]


@pytest.mark.parametrize("score", ["all", "new"])
def test_a_bos_stands_before_every_window_and_is_never_scored(score: str) -> None:
    """The document's own first token then has a prediction."""
    windows = cut([document(0, 14)], suite(score), bos=99)
    assert all(s.ids[0] == 99 for s in windows)
    assert scored_places(windows) == list(range(14))
    for s in windows:
        for i in range(s.first, s.last):
            assert s.ids[i + 1] == s.start + i + 1 + 1  # the document holds 1, 2, 3, …


@pytest.mark.parametrize("length", [3, 7, 8, 14, 30])
@pytest.mark.parametrize(
    ("score", "stride"), [("all", None), ("new", None), ("new", 4), ("second_half", None)]
)
def test_a_document_that_begins_with_a_bos_is_fed_as_without_it(
    score: str, stride: int | None, length: int
) -> None:
    """The same windows and the same scored tokens; only their places are one further on."""
    plain = document(0, length)
    given = Document(0, "c", "d", np.concatenate([[99], plain.tokens]), None, {})
    found, wanted = (cut([d], suite(score, stride=stride), bos=99) for d in (given, plain))
    assert [s.ids.tolist() for s in found] == [s.ids.tolist() for s in wanted]
    assert [(s.start, s.first, s.last) for s in found] == [
        (s.start + 1, s.first, s.last) for s in wanted
    ]
    for s in found:  # a place is that of the token in the document as it was given
        for i in range(s.first, s.last):
            assert s.ids[i + 1] == given.tokens[s.start + i + 1]
    assert 0 not in scored_places(found)


def test_where_a_bos_is_no_prefix_it_is_a_token_like_any_other() -> None:
    """A model that expects none before a text reads what the text holds."""
    given = Document(0, "c", "d", np.array([99, 1, 2]), None, {})
    assert cut([given], suite("all"), bos=None)[0].ids.tolist() == [99, 1, 2]
    assert cut([given], suite("all"), bos=7)[0].ids.tolist() == [7, 99, 1, 2]


def test_a_bos_of_a_documents_own_is_said() -> None:
    """How many have one."""
    given = Document(1, "c", "d", np.array([99, 1, 2]), None, {})
    assert own_bos([document(0, 4)], 99) == own_bos([given], None) == own_bos([given], 7) == []
    assert own_bos([document(0, 4), given], 99) == [
        "1 document begins with the BOS token (99) already, and no second one is put before it"
    ]
    assert own_bos([given, given], 99)[0].startswith("2 documents begin with the BOS token (99)")


def test_blocks_hold_whole_documents() -> None:
    """A document never lies in two blocks, or its cluster would be split by a resume."""
    documents = [document(i, 12) for i in range(5)]
    groups = blocks(documents, cut(documents, suite("all"), None), 20)
    homes = [{s.document for s in g} for g in groups]
    assert homes == [{0, 1}, {2, 3}, {4}]


def test_probed_windows_are_spread_over_the_suite() -> None:
    """Four of twelve documents, one from each quarter."""
    documents = [document(i, 8) for i in range(12)]
    found = cut(documents, suite("all"), None, watched=4)
    assert [s.document for s in found if s.probed] == [1, 4, 7, 10]


def test_a_batch_never_mixes_probed_and_plain_windows() -> None:
    """Probed batches run in lock-step."""
    documents = [document(i, 8) for i in range(6)]
    for batch in batches(cut(documents, suite("all"), None, watched=2), 4):
        assert len({s.probed for s in batch}) == 1
