"""Several candidates under one policy: PASSes that hold for all of them together.

A policy's PASS is one test: that some limit is not kept is rejected at α, an intersection-union
test over its gates. Of k candidates that do not keep their limits at least one passes with a
probability of up to 1 − (1 − α)^k where their errors are independent, and of k·α at most whatever
they share, such as documents. Holm's procedure over candidates brings it back to α: all are decided
at α/k, those left over at α/(k − the number that passed), until none more passes. Every interval is
asked for at that level, of the estimator; none is stretched. Only PASS is corrected: a candidate
that is wrongly called FAIL is not shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from evalharness.errors import InputError
from evalharness.gates.policy_check import check_policy
from evalharness.spec.policy import Policy


@dataclass(frozen=True)
class Rate:
    """How often at least one of several candidates passes though none keeps its limits."""

    independent: float
    at_most: float


def by_chance(candidates: int, confidence: float) -> Rate:
    """The rate among so many, each judged at one-sided ``confidence``."""
    return Rate(1 - confidence**candidates, min(1.0, candidates * (1 - confidence)))


def stricter(policy: Policy, tests: int) -> Policy:
    """``policy`` at the confidence that each of so many tests takes (Bonferroni)."""
    if tests == 1:
        return policy
    return replace(policy, confidence=1 - (1 - policy.confidence) / tests)


def check_family(policy: Policy, candidates: int) -> None:
    """Raise `InputError` where so many candidates take more confidence than can be shown."""
    try:
        check_policy(stricter(policy, candidates))
    except InputError as error:
        raise InputError(
            f"with {candidates} candidates each is judged at 1 - {1 - policy.confidence:.4g}/"
            f"{candidates}, and {error.message}",
            path=policy.path,
            key="--family-wise",
            remedy="Compare fewer at once, or lower the policy's confidence.",
        ) from None


def holm(candidates: int, able: Collection[int], passes: Callable[[int, int], bool]) -> list[int]:
    """The number that α is divided by where each of ``candidates`` is decided last.

    Parameters
    ----------
    candidates : how many there are, whatever became of them.
    able : those that pass at α itself; no other can pass at less.
    passes : (index, tests): whether one passes at α/tests.

    Returns
    -------
    For those that pass, what they pass at; for all others, what they would have had to pass at.

    References
    ----------
    Holm 1979, Scandinavian Journal of Statistics 6:65–70: rejecting all hypotheses with p at most
    α/(those left) at once, until there are none, is his procedure without the ordering.

    """
    found, waiting, left = [candidates] * candidates, sorted(able), candidates
    while True:
        passed = [index for index in waiting if passes(index, left)]
        for index in range(candidates):
            if index in waiting or index not in able:
                found[index] = left
        waiting = [index for index in waiting if index not in passed]
        if not passed or not waiting:
            break
        left -= len(passed)
    return found
