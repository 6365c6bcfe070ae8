"""The reference's prompts, kept for other candidates, within a bound."""

from __future__ import annotations

import torch

from evalharness.pair.tasks.kept_prompts import KeptPrompts


def test_as_many_are_kept_as_fit_and_the_rest_is_computed_again() -> None:
    """With the same result; a smaller batch may still find room."""
    kept, computed = KeptPrompts(most=100), []

    def states(rows: int) -> torch.Tensor:
        computed.append(rows)
        return torch.full((rows, 4), float(rows))

    for _ in range(2):
        for rows in (4, 3, 2):  # 64, 48 and 32 bytes
            assert kept.get(bytes([rows]), lambda rows=rows: states(rows)).shape == (rows, 4)
    assert computed == [4, 3, 2, 3]
    assert (len(kept), kept.bytes, kept.full) == (2, 96, True)
