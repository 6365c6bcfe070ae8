"""Documents that hold the same text: they count as one, or intervals would be too narrow."""

from __future__ import annotations

from collections.abc import Sequence

from evalharness.data.documents import Document

_MOST_NAMED = 5


def same_text(documents: Sequence[Document]) -> list[list[int]]:
    """The numbers of documents whose tokens are the same, a list each; those alone are in none."""
    by_tokens: dict[bytes, list[int]] = {}
    for document in documents:
        by_tokens.setdefault(document.tokens.tobytes(), []).append(document.number)
    return [numbers for numbers in by_tokens.values() if len(numbers) > 1]


def said(documents: Sequence[Document]) -> list[str]:
    """A warning that names documents whose text an earlier one holds; empty where there are none.

    ``documents`` are all of them, by number.
    """
    later = [number for group in same_text(documents) for number in group[1:]]
    if not later:
        return []
    named = (f"{documents[n].corpus}/{documents[n].id}" for n in sorted(later)[:_MOST_NAMED])
    more = ", …" if len(later) > _MOST_NAMED else ""
    hold = "holds" if len(later) == 1 else "hold"
    return [
        f"{len(later)} of {len(documents)} documents {hold} the text of another "
        f"({', '.join(named)}{more}): those with the same text are one cluster"
    ]
