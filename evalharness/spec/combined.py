"""``combined.json``: several candidates of one reference, verdicts corrected for their number.

With many candidates some that are at a limit pass by chance: each verdict is right 95 times in a
hundred, and a choice among ten of them is not. Beside every run's own verdict stands the one that
holds for all of them together.
"""

from __future__ import annotations

from typing import Literal

from evalharness.spec.estimate import Part, Verdict

SCHEMA_VERSION = 1


class Claim(Part):
    """One candidate's own verdict, and the one corrected for the number of candidates."""

    candidate: str
    run: str  # its directory, beside this file
    verdict: Verdict | None  # of its own run; null: it could not be measured
    exit_code: int
    corrected: Verdict | None
    corrected_exit_code: int
    confidence: float | None  # one-sided, at which its gates were asked; null: its own says it all
    reason: str  # a sentence on the corrected verdict


class Combined(Part):
    """The whole of ``combined.json``.

    ``by_chance`` is the chance that at least one of so many candidates passes though none keeps its
    limits, were their errors independent; ``at_most`` bounds it whatever they have in common.
    """

    schema_version: int = SCHEMA_VERSION
    candidates: int
    confidence: float  # of each own verdict, one-sided
    by_chance: float
    at_most: float
    method: str = "Holm over candidates, each policy decided again at the corrected confidence"
    deciding: Literal["own", "corrected"] = "own"  # which verdicts the exit code is of
    exit_code: int
    statement: str
    claims: list[Claim]
