"""Windows: runs of tokens of one document, and which positions of them are scored.

A window's logits at index i predict its token i + 1. Windows are right-padded within a batch and
no attention mask is passed: under causal attention a later token cannot change an earlier one, so
padding is exact, and the fast attention kernels stay available.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evalharness.data.documents import Document, Ids
from evalharness.errors import plural
from evalharness.spec.suite import Suite, Windowing


@dataclass(frozen=True)
class Window:
    """One window: ``ids`` as fed, and the range of logits in it that is scored."""

    number: int  # over the suite
    document: int  # index of its document
    start: int  # place of ids[0] in the document; one less where a BOS is put before it
    ids: Ids
    first: int  # the first scored logit index
    last: int  # one past the last scored logit index
    probed: bool = False

    @property
    def scored(self) -> int:
        """How many logits are scored."""
        return self.last - self.first


def cut(documents: list[Document], suite: Suite, bos: int | None, watched: int = 0) -> list[Window]:
    """Cut documents into windows, in order; mark those that a probe watches.

    Parameters
    ----------
    bos : the token that this model expects before every text, or None.
    watched : how many windows the suite's probe samples.

    """
    limits = {c.name: c.max_windows for c in suite.corpora}
    windows: list[Window] = []
    for document in documents:
        for piece in _cut(document, suite.window, bos, limits[document.corpus]):
            windows.append(Window(len(windows), document.number, *piece))
    if watched and windows:
        # Spread evenly, from the middle of each stretch, over as many documents as possible.
        count = min(watched, len(windows))
        chosen = set(spread(len(windows), count))
        windows = [
            Window(s.number, s.document, s.start, s.ids, s.first, s.last, s.number in chosen)
            for s in windows
        ]
    return windows


def _cut(
    document: Document, window: Windowing, bos: int | None, most: int | None
) -> Iterator[tuple[int, Ids, int, int]]:
    prefix = [] if bos is None else [bos]
    # Its own BOS is that of its first window: after a second one it would be scored as text.
    skipped = int(begins_with(document, bos))
    tokens = document.tokens[skipped:]
    length = window.tokens - len(prefix)
    step = max(1, window.step - len(prefix))
    seen = 0
    for count, start in enumerate(range(0, len(tokens), step)):
        if most is not None and count >= most:
            return
        body = tokens[start : start + length]
        ids = np.concatenate([prefix, body]).astype(np.int64)
        first = 0
        if window.score == "second_half":
            first = window.tokens // 2
        elif window.score == "new" and start:
            # The token at place p is predicted by the logit at len(prefix) + p − start − 1.
            first = len(prefix) + seen - start - 1
        last = len(ids) - 1
        if last > first:
            yield skipped + start - len(prefix), ids, first, last
        seen = start + len(body)
        if seen >= len(tokens):
            return


def begins_with(document: Document, bos: int | None) -> bool:
    """Whether a document begins with the BOS that this model expects before every text."""
    return bos is not None and len(document.tokens) > 0 and int(document.tokens[0]) == bos


def own_bos(documents: Sequence[Document], bos: int | None) -> list[str]:
    """What is to be said of documents that begin with a BOS of their own."""
    count = sum(begins_with(document, bos) for document in documents)
    if not count:
        return []
    begin = f"{plural(count, 'document')} {'begin' if count > 1 else 'begins'}"
    return [f"{begin} with the BOS token ({bos}) already, and no second one is put before it"]


def blocks(documents: list[Document], windows: list[Window], tokens: int) -> list[list[Window]]:
    """Group whole documents into blocks of about ``tokens`` tokens: the unit of resuming."""
    of = by_document(windows)
    groups: list[list[Window]] = []
    size = tokens
    for document in documents:
        own = of.get(document.number, [])
        if size >= tokens:
            groups.append([])
            size = 0
        groups[-1] += own
        size += sum(len(s.ids) for s in own)
    return [g for g in groups if g]


def by_document(windows: Iterable[Window]) -> dict[int, list[Window]]:
    """The windows of each document, by its number."""
    found: dict[int, list[Window]] = {}
    for window in windows:
        found.setdefault(window.document, []).append(window)
    return found


def spread(size: int, count: int) -> list[int]:
    """``count`` of ``range(size)``, evenly, each from the middle of its stretch."""
    return [int((i + 0.5) * size / count) for i in range(count)]


def padded(batch: Sequence[Window]) -> Ids:
    """The ids of a batch, (B, T), zero-padded on the right."""
    ids = np.zeros((len(batch), max(len(s.ids) for s in batch)), np.int64)
    for i, s in enumerate(batch):
        ids[i, : len(s.ids)] = s.ids
    return ids


def longest(windows: Sequence[Window]) -> int:
    """Tokens of the longest of ``windows``; 0: there are none."""
    return max((len(w.ids) for w in windows), default=0)


def batches(block: list[Window], batch_size: int) -> list[list[Window]]:
    """Batches of similar length; probed windows go together, since they run in lock-step."""
    result: list[list[Window]] = []
    for probed in (False, True):
        group = sorted(
            (s for s in block if s.probed == probed), key=lambda s: (-len(s.ids), s.number)
        )
        result += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    return result
