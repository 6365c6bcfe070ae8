"""Requests that share a prompt, packed: every shared token is fed to a model once.

    requests (context, continuation)
        │  equal contexts
    documents: one trie each, context first, then the continuations as branches
        │  long common beginnings (few-shot examples)
    groups: a shared prefix, and the documents that go on from it

A token attends to its ancestors in the trie and to the whole shared prefix, at the position that it
has in its own sequence: what it computes is what it would compute alone. The last token of a
continuation is only predicted, so it is not fed. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Request = tuple[Sequence[int], Sequence[int]]  # token ids of context and continuation
Run = tuple[int, int, int]  # first context, one past the last, tokens that all of them share

# A shared prefix costs one more forward, and a copy of its keys and values a batch.
MIN_PREFIX_TOKENS = 16
MIN_SAVED_TOKENS = 64
MAX_NESTING = 100  # prefixes inside prefixes that are looked at


@dataclass(frozen=True)
class ContextTrie:
    """The trie of one context. Node i is fed after its parent; −1 is the end of the prefix."""

    tokens: Ids  # (T,)
    parents: Ids  # (T,)
    positions: Ids  # (T,) in the document's own sequences, the prefix counted
    context: int  # the first so many nodes are a chain
    scored: tuple[tuple[int, Ids, Ids], ...]  # (request, nodes that predict, tokens predicted)

    def ancestors(self) -> npt.NDArray[np.bool_]:
        """(T, T): whether node i attends to node j."""
        seen = np.zeros((len(self.tokens),) * 2, dtype=bool)
        seen[: self.context, : self.context] = np.tri(self.context, dtype=bool)
        for node in range(self.context, len(self.tokens)):
            seen[node] = seen[self.parents[node]]
            seen[node, node] = True
        return seen


@dataclass(frozen=True)
class Group:
    """Documents that go on from one prefix, which may be empty; the longest first."""

    prefix: Ids  # (P,)
    documents: tuple[ContextTrie, ...]

    def batches(self, size: int, overhead: int) -> Iterator[tuple[ContextTrie, ...]]:
        """At most ``size`` documents at a time, cut where that costs least.

        A batch costs its padded tokens and ``overhead``, what one more forward costs in tokens:
        documents of very different lengths are not padded to the longest of them.
        """
        lengths = [len(d.tokens) for d in self.documents]
        # best[i]: least cost of the documents before i, and where the last batch of them begins.
        best = [(0, 0)]
        for end in range(1, len(lengths) + 1):
            starts = range(max(0, end - size), end)
            best.append(min((best[s][0] + (end - s) * lengths[s] + overhead, s) for s in starts))
        cuts = [len(lengths)]
        while cuts[-1]:
            cuts.append(best[cuts[-1]][1])
        for start, end in pairwise(reversed(cuts)):
            yield self.documents[start:end]


def pack(
    requests: Sequence[Request],
    max_length: int,
    *,
    min_prefix: int = MIN_PREFIX_TOKENS,
    min_saved: int = MIN_SAVED_TOKENS,
) -> list[Group]:
    """Pack ``requests``, each cut from the left to ``max_length`` fed tokens as lm-eval cuts it.

    A prefix has at least ``min_prefix`` tokens and saves at least ``min_saved``.
    """
    contexts: dict[tuple[int, ...], list[int]] = {}
    for index, (context, continuation) in enumerate(requests):
        kept = cut_left(context, continuation, max_length)
        contexts.setdefault(kept, []).append(index)
    ordered = sorted(contexts)
    found: dict[tuple[int, ...], list[ContextTrie]] = {}
    common = np.array([_common(a, b) for a, b in pairwise(ordered)], np.int64)
    for first, last, depth in _cut(common, 0, len(ordered), min_prefix, min_saved)[1]:
        for context in ordered[first:last]:
            asked = [(r, requests[r][1]) for r in contexts[context]]
            # All that share no prefix are one group, so that they fill batches together.
            found.setdefault(context[:depth], []).append(_document(context, depth, asked))
    return [
        Group(np.array(prefix, np.int64), tuple(sorted(documents, key=lambda d: -len(d.tokens))))
        for prefix, documents in found.items()
    ]


def cut_left(
    context: Sequence[int], continuation: Sequence[int], max_length: int
) -> tuple[int, ...]:
    """What is left of the context when context + continuation − 1 tokens must fit."""
    room = max_length + 1 - len(continuation)
    if not context or not continuation:
        raise ValueError("a request must have a context and a continuation")
    if room < 1:
        raise ValueError(f"a continuation of {len(continuation)} tokens does not fit {max_length}")
    return tuple(context[-room:])


def _document(
    context: tuple[int, ...], start: int, continuations: list[tuple[int, Sequence[int]]]
) -> ContextTrie:
    """The trie of ``context[start:]`` and its continuations (request, tokens)."""
    tokens = list(context[start:])
    size = len(tokens)
    parents = list(range(-1, size - 1))
    positions = list(range(start, start + size))
    children: dict[tuple[int, int], int] = {}
    scored = []
    for request, continuation in continuations:
        node, path = size - 1, []
        for at, token in enumerate(continuation):
            path.append(node)
            if at == len(continuation) - 1:
                break
            following = children.get((node, token))
            if following is None:
                following = children[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
                positions.append(positions[node] + 1)
            node = following
        scored.append((request, np.array(path, np.int64), np.array(continuation, np.int64)))
    return ContextTrie(
        np.array(tokens, np.int64),
        np.array(parents, np.int64),
        np.array(positions, np.int64),
        size,
        tuple(scored),
    )


def _cut(
    common: Ids, first: int, last: int, min_prefix: int, min_saved: int, nesting: int = 0
) -> tuple[int, list[Run]]:
    """The best cut of the sorted contexts first … last − 1: tokens saved, and the runs.

    ``common``: tokens that each context shares with the next. A run is shared whole, or cut where
    it shares least and each part cut in turn, whichever saves more. One prefix a run, none inside
    another.
    """
    alone: tuple[int, list[Run]] = (0, [(first, last, 0)])
    inside = common[first : last - 1]
    if len(inside) == 0 or inside.max() < min_prefix or nesting > MAX_NESTING:
        return alone
    depth = int(inside.min())
    saved = depth * len(inside)
    whole = (saved, [(first, last, depth)])
    if depth < min_prefix or saved < min_saved:
        whole = alone
    cuts = first + 1 + np.flatnonzero(inside == depth)
    edges = [first, *(int(c) for c in cuts), last]
    parts = [_cut(common, a, b, min_prefix, min_saved, nesting + 1) for a, b in pairwise(edges)]
    inner = sum(p[0] for p in parts)
    if inner <= whole[0]:
        return whole
    return inner, [run for part in parts for run in part[1]]


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Tokens shared by the beginnings of ``a`` and ``b``, both keeping one of their own."""
    most = min(len(a), len(b)) - 1
    for at in range(most):
        if a[at] != b[at]:
            return at
    return max(most, 0)
