"""Packed documents taken apart again, for engines that take one plain sequence at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt


def unpacked(
    ids: npt.NDArray[np.int64],
    sees: npt.NDArray[np.bool_],
    scored: Sequence[tuple[int, int]],
    prefix: Sequence[int],
    add: Callable[[list[int]], int],
) -> list[tuple[int, int]]:
    """Where each scored node is: (number of a sequence, position in it).

    Parameters
    ----------
    ids : (B, T) token of each node.
    sees : (B, T, T) whether a node is the other's ancestor, or itself.
    scored : (row, node) of each.
    prefix : tokens before every document.
    add : gives a sequence its number.

    """
    found: dict[tuple[int, int], tuple[int, int]] = {}
    paths = {(row, node): np.flatnonzero(sees[row, node, : node + 1]) for row, node in scored}
    # The deepest first: what lies on its way needs no sequence of its own.
    for row, node in sorted(paths, key=lambda place: -len(paths[place])):
        if (row, node) in found:
            continue
        path = paths[row, node]
        number = add([*map(int, prefix), *ids[row, path].tolist()])
        for depth, at in enumerate(path.tolist()):
            found.setdefault((row, at), (number, len(prefix) + depth))
    return [found[place] for place in scored]
