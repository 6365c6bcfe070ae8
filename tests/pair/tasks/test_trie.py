"""Requests packed into tries, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evalharness.pair.tasks.trie import Request, cut_left, pack


def lists(document: Any) -> tuple[list[int], list[int], list[int]]:
    return document.tokens.tolist(), document.parents.tolist(), document.positions.tolist()


def sequences(groups: list[Any]) -> dict[int, tuple[list[int], list[int]]]:
    """What each request is, read back from the tries: fed tokens up to each scored place."""
    found = {}
    for group in groups:
        for document in group.documents:
            for request, nodes, targets in document.scored:
                path, node = [], int(nodes[-1])
                while node >= 0:
                    path.append(int(document.tokens[node]))
                    node = int(document.parents[node])
                found[request] = ([*group.prefix.tolist(), *path[::-1]], targets.tolist())
    return found


def test_a_context_is_fed_once_and_continuations_branch_from_it() -> None:
    """By hand: shared first token once, last tokens not at all."""
    (group,) = pack([([1, 2], [5, 6, 7]), ([1, 2], [5, 8, 9]), ([1, 2], [4])], 100)
    (document,) = group.documents
    assert group.prefix.tolist() == []
    assert lists(document) == ([1, 2, 5, 6, 8], [-1, 0, 1, 2, 2], [0, 1, 2, 3, 3])
    assert [(r, n.tolist(), t.tolist()) for r, n, t in document.scored] == [
        (0, [1, 2, 3], [5, 6, 7]),
        (1, [1, 2, 4], [5, 8, 9]),
        (2, [1], [4]),
    ]
    assert document.ancestors().astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 1],
    ]


def test_examples_that_contexts_share_become_a_prefix() -> None:
    """Forty tokens shared by four contexts are fed once; a context of its own goes alone."""
    shared = list(range(100, 140))
    requests: list[Request] = [([*shared, 7, i], [1, 2]) for i in range(4)]
    requests.append(([9, 9, 9], [1, 2]))
    groups = {len(g.prefix): g for g in pack(requests, 1000)}
    assert sorted(groups) == [0, 41]
    assert [lists(d)[0] for d in groups[41].documents] == [[i, 1] for i in range(4)]
    assert lists(groups[41].documents[0])[2] == [41, 42]
    assert lists(groups[0].documents[0]) == ([9, 9, 9, 1], [-1, 0, 1, 2], [0, 1, 2, 3])


def test_a_stray_context_does_not_shorten_the_prefix_of_the_others() -> None:
    """Items that are examples themselves see other examples: few-shot tasks have a handful."""
    shared = list(range(100, 200))
    requests: list[Request] = [([*shared, i], [1]) for i in range(20)]
    requests.append(([*shared[:80], 7, 7], [1]))
    sizes = sorted((len(g.prefix), len(g.documents)) for g in pack(requests, 1000))
    assert sizes == [(0, 1), (100, 20)]


def test_a_short_common_beginning_is_not_worth_a_prefix() -> None:
    """Every prompt may begin with the same word."""
    (group,) = pack([([5, 5, 5, i, i], [1]) for i in range(30)], 1000)
    assert (len(group.prefix), len(group.documents)) == (0, 30)


def test_batches_are_cut_where_lengths_jump_and_are_never_too_large() -> None:
    """Padding eight short documents to a long one would cost more than another forward."""
    from evalharness.pair.tasks.trie import Group

    lengths = [400, 60, 58, 57, 55, 55, 54, 20, 20]
    documents = tuple(SimpleNamespace(tokens=range(n)) for n in lengths)
    group = Group(np.zeros(0, np.int64), documents)  # type: ignore[arg-type]

    def cut(size: int, overhead: int) -> list[list[int]]:
        return [[len(d.tokens) for d in b] for b in group.batches(size, overhead)]

    assert cut(8, 24) == [[400], [60, 58, 57, 55, 55, 54], [20, 20]]
    assert cut(4, 24) == [[400], [60, 58, 57], [55, 55, 54], [20, 20]]
    assert cut(9, 100_000) == [lengths]
    assert cut(1, 0) == [[n] for n in lengths]


@pytest.mark.parametrize("seed", range(20))
def test_every_request_can_be_read_back_from_the_tries(seed: int) -> None:
    """Random contexts with shared beginnings of random lengths, few distinct tokens."""
    random = np.random.default_rng(seed)

    def draw(low: int, high: int) -> list[int]:
        return [int(i) for i in random.integers(0, 3, random.integers(low, high))]

    stems = [draw(0, 60) for _ in range(4)]
    requests: list[Request] = [
        ([*stems[int(random.integers(4))], *draw(1, 5)], draw(1, 6)) for _ in range(60)
    ]
    found = sequences(pack(requests, 40))
    assert sorted(found) == list(range(60))
    for index, (context, continuation) in enumerate(requests):
        # lm-eval's own cut: (context + continuation)[-(max_length + 1):][:-1]
        fed = [*context, *continuation][-41:][:-1]
        assert found[index] == (fed, continuation)


def test_a_continuation_that_does_not_fit_is_refused() -> None:
    """There is no context left to predict its first token from."""
    assert cut_left([1, 2, 3], [4, 5], 3) == (2, 3)
    with pytest.raises(ValueError, match="a continuation of 4 tokens does not fit 3"):
        cut_left([1], [1, 2, 3, 4], 3)
    with pytest.raises(ValueError, match="a request must have a context and a continuation"):
        cut_left([1], [], 3)
