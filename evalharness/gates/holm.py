"""Holm's correction with weights, so that no gate pays for the matches of another.

Each gate has weight 1, shared among the scopes it is tested in: thirty blocks of one gate weigh as
much together as one gate of perplexity. With a single scope a gate this is Holm's test as it is
in every textbook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


def levels(
    p_values: Sequence[float],
    weights: Sequence[float],
    alpha: float,
    rejected: Callable[[int, float], bool],
) -> list[float]:
    """The significance level that each hypothesis is tested at in Holm's step-down procedure.

    Hypotheses are taken by p/w; each is tested at α·w over the weight that is left, until one is
    kept: it and all after it are tested at that step's levels. ``rejected(index, level)`` is the
    test; the p-values only order them, and any order keeps the chance of a false rejection at
    ``alpha``, whatever the dependence.

    References
    ----------
    Holm 1979, Scandinavian Journal of Statistics 6:65–70, section 4.

    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i] / weights[i])
    found = [0.0] * len(p_values)
    stopped = False
    left = sum(weights)
    for index in order:
        found[index] = alpha * weights[index] / left
        stopped = stopped or not rejected(index, found[index])
        if not stopped:
            # Summed anew: subtracting would let rounding into the last hypothesis's level.
            left = sum(weights[i] for i in order[order.index(index) + 1 :])
    return found
