"""Tries taken apart into plain sequences again."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from evalharness.pair.tasks.packed_pass import Batch
from evalharness.pair.tasks.trie import Request, pack
from evalharness.pair.tasks.unpacked import unpacked

# Few tokens, so that requests share much; the longest are cut to 24.
Tokens = st.lists(st.integers(1, 3), min_size=1, max_size=20)
Requests = st.lists(st.tuples(Tokens, st.lists(st.integers(1, 3), min_size=1, max_size=5)))


def plain(requests: list[Request], size: int, **options: Any) -> tuple[dict[int, Any], int]:
    """What each request becomes, (tokens up to each scored place, targets); and all that is fed."""
    found: dict[int, Any] = {}
    fed = 0
    for group in pack(requests, 24, **options):
        prefix = group.prefix.tolist()
        for documents in group.batches(size, 8):
            batch = Batch(documents, len(prefix))
            sequences: list[list[int]] = []

            def add(ids: list[int], sequences: list[list[int]] = sequences) -> int:
                sequences.append(ids)
                return len(sequences) - 1

            scored = list(zip(batch.rows.tolist(), batch.columns.tolist(), strict=True))
            sees = batch.allowed[:, 0, :, len(prefix) :].numpy()
            places = unpacked(batch.ids.numpy(), sees, scored, prefix, add)
            fed += sum(map(len, sequences))
            for request, reads, targets in batch.reads:
                ways = [
                    sequences[number][: position + 1]
                    for number, position in (places[at] for at in reads)
                ]
                found[request] = (ways, targets.tolist())
    return found, fed


@given(Requests, st.integers(1, 4))
def test_every_request_is_recovered(requests: list[Request], size: int) -> None:
    """Each scored place is preceded by its own context and continuation, and by nothing else."""
    found, fed = plain(requests, size, min_prefix=2, min_saved=2)
    assert sorted(found) == list(range(len(requests)))
    apart = 0
    for number, (context, continuation) in enumerate(requests):
        kept = list(context)[-(25 - len(continuation)) :]
        whole = [*kept, *continuation]
        ways, targets = found[number]
        assert targets == continuation
        assert ways == [whole[: len(kept) + i] for i in range(len(continuation))]
        apart += len(whole) - 1
    assert fed <= apart


def test_what_lies_on_the_way_of_another_is_fed_with_it() -> None:
    """By hand: one context with three continuations, two of them on one way."""
    found, fed = plain([([1, 2], [3, 1, 1]), ([1, 2], [3, 1]), ([1, 2], [2])], 4)
    assert found[0][0] == [[1, 2], [1, 2, 3], [1, 2, 3, 1]]
    assert found[1][0] == [[1, 2], [1, 2, 3]]
    assert found[2][0] == [[1, 2]]
    assert fed == 4
