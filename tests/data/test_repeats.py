"""Documents that hold the same text: known by their tokens, whatever they are called."""

from __future__ import annotations

import numpy as np

from evalharness.data.documents import Document, Text
from evalharness.data.repeats import said, same_text
from evalharness.spec.suite import Suite
from evalharness.workflow.plan import sizes


def documents(*texts: str) -> list[Document]:
    """One document a text, of its characters' codes."""
    return [
        Document(n, "ab"[n % 2], f"d{n}", np.array([ord(c) for c in text]), None, {})
        for n, text in enumerate(texts)
    ]


def test_documents_of_one_text_are_found_over_all_corpora() -> None:
    """Each group in the order of the documents; a text that begins alike is another."""
    found = documents("one", "two", "one", "three", "ones", "two", "one")
    assert same_text(found) == [[0, 2, 6], [1, 5]]
    assert said(found) == [
        "3 of 7 documents hold the text of another (a/d2, b/d5, a/d6): those with the same text "
        "are one cluster"
    ]
    assert said(documents("one", "two")) == []
    many = said(documents(*["same"] * 8))[0]
    assert "7 of 8 documents hold" in many
    assert "b/d5, …)" in many


def test_a_plan_counts_texts_and_not_their_copies() -> None:
    """What a limit can decide hangs on the documents that are independent."""
    suite = Suite.model_validate(
        {
            "name": "s",
            "corpora": [{"name": "a", "source": "python:x"}, {"name": "b", "tokens": "x.npy"}],
            "slices": [{"name": "odd", "where": {"kind": "odd"}}],
        }
    )
    words = ["one", "two", "one", "one"]
    texts = [
        Text("a", f"d{n}", word, None, {"kind": "odd" if n % 2 else "even"})
        for n, word in enumerate(words)
    ]
    texts += [Text("a", "e", "two", None, {"kind": "odd"})]
    texts += [Text("b", str(n), None, np.array([n // 2]), {}) for n in range(4)]
    found = sizes(suite, texts, None)
    assert found.documents == {"a": 2, "b": 2}
    assert found.slices == {"odd": 2}
