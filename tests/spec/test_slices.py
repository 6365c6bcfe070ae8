"""Slices: which documents and positions a suite's entries take."""

from __future__ import annotations

from evalharness.spec.slices import SlicedDocument, Subset, subsets

DOCS = [
    SlicedDocument("wiki", "a", {"language": "de", "kind": "[x]"}, 10),
    SlicedDocument("wiki", "b", {"language": "en"}, 200),
    SlicedDocument("code", "c", {}, 30),
]


def taken(**where: str) -> str:
    return "".join(d.id for d in DOCS if Subset("s", where).takes(d))


def test_globs_are_over_attributes_corpus_and_id() -> None:
    """And all of them must match."""
    assert taken(language="d*") == "a"
    assert taken(corpus="wiki") == "ab"
    assert taken(corpus="wiki", id="b") == "b"


def test_what_a_document_does_not_have_matches_nothing() -> None:
    """Not even a star."""
    assert taken(language="*") == "ab"
    assert taken(absent="*") == ""


def test_lengths_are_in_tokens_and_positions_take_no_document_away() -> None:
    """First included, last not; a length that is not counted yet may match."""
    assert taken(length="30:") == "bc"
    assert taken(length="10:30") == "a"
    assert taken(position="0:5") == "abc"
    assert Subset("s", {"position": "5:"}).positions == (5, float("inf"))
    assert Subset("s", {"length": "30:"}).takes(SlicedDocument("c", "d", {}))


def test_by_makes_a_slice_a_value() -> None:
    """A value is itself, not a glob; what has none is in no slice."""
    found = subsets([{"by": "language"}, {"by": "kind"}, {"by": "corpus"}], DOCS)
    names = {s.name: "".join(d.id for d in DOCS if s.takes(d)) for s in found}
    assert names == {
        "language=de": "a",
        "language=en": "b",
        "kind=[x]": "a",
        "corpus=code": "c",
        "corpus=wiki": "ab",
    }
