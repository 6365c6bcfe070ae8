"""Slices: named subsets of a suite's documents, and of the positions in them.

    - {name: german, where: {language: de}}         an attribute, corpus or id that matches a glob
    - {name: start, where: {position: "0:128"}}     the first 128 tokens of every document
    - {name: long, where: {length: "2000:"}}        documents of 2,000 tokens and more
    - {by: language}                                one slice a value: language=de, language=en …

Attributes are JSONL keys or hub columns (`attributes:` of a corpus), or the same for all of a
corpus (`labels:`).
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

RANGES = ("position", "length")  # given as first:last, last excluded
RESERVED = ("corpus", "id", *RANGES)
MOST = 64  # values of an attribute that `by` may split into


@dataclass(frozen=True)
class SlicedDocument:
    """What decides whether a document is in a slice; ``tokens`` None where not yet counted."""

    corpus: str
    id: str
    attributes: Mapping[str, str]
    tokens: int | None = None


@dataclass(frozen=True)
class Subset:
    """One slice, with the values of `by` filled in."""

    name: str
    where: Mapping[str, str]

    def takes(self, doc: SlicedDocument) -> bool:
        """Whether any position of ``doc`` is in the slice; a length not yet counted matches."""
        known = {**doc.attributes, "corpus": doc.corpus, "id": doc.id}
        for key, wanted in self.where.items():
            if key == "length" and doc.tokens is not None:
                first, last = between(wanted)
                if not first <= doc.tokens < last:
                    return False
            elif key not in RANGES and not (key in known and fnmatchcase(known[key], wanted)):
                return False
        return True

    @property
    def positions(self) -> tuple[int, float] | None:
        """The positions of a document that it takes; None: all."""
        return between(self.where["position"]) if "position" in self.where else None


def between(text: str) -> tuple[int, float]:
    """``first:last`` as numbers, either of which may be left out."""
    first, _, last = text.partition(":")
    return int(first or 0), int(last) if last else float("inf")


def subsets(slices: Iterable[Mapping[str, Any]], docs: Sequence[SlicedDocument]) -> list[Subset]:
    """The slices of a suite, as dumped, over ``docs``: `by` becomes one a value that they have."""
    found = []
    for entry in slices:
        by = entry.get("by")
        if by is None:
            found.append(Subset(str(entry["name"]), entry["where"]))
            continue
        values = sorted({d.corpus if by == "corpus" else d.attributes.get(by, "") for d in docs})
        found += [Subset(f"{by}={v}", {by: glob.escape(v)}) for v in values if v]
    return found
