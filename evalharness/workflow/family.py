"""The verdicts of several candidates, corrected for their number, from the runs on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evalharness.gates import Decision
from evalharness.gates.family import by_chance, holm, stricter
from evalharness.results.judge import judge
from evalharness.run.finished import open_finished
from evalharness.spec.combined import Claim, Combined
from evalharness.spec.policy import Policy
from evalharness.spec.result import Result
from evalharness.stats import TooFewReplicates

# Of all codes the first: could not finish, wrong input, failed, inconclusive, passed.
WORST = (4, 2, 1, 3, 0)


@dataclass(frozen=True)
class Member:
    """One candidate: what became of it, and where its run is."""

    candidate: str
    out: Path
    result: Result | None
    exit_code: int
    why: str = ""  # it has no result

    def own(self, exit_code: int) -> Claim:
        """Its own verdict for both."""
        return Claim(
            candidate=self.candidate,
            run=self.out.name,
            verdict=None if self.result is None else self.result.verdict,
            exit_code=exit_code,
            corrected=None if self.result is None else self.result.verdict,
            corrected_exit_code=exit_code,
            confidence=None,
            reason=self.why if self.result is None else self.result.headline,
        )


def worst(codes: Sequence[int]) -> int:
    """The exit code of all."""
    return next((code for code in WORST if code in codes), 4)


def corrected(members: Sequence[Member], policy: Policy, deciding: bool) -> Combined:
    """Hold every PASS against the number of candidates; ``deciding``: the exit code goes by it."""

    @cache
    def decision(index: int, tests: int) -> Decision | str:
        """At the confidence of so many tests; or why it cannot be had."""
        asked = stricter(policy, tests)
        try:
            return judge(open_finished(members[index].out), asked)[1]
        except TooFewReplicates:
            return f"a confidence of {asked.confidence:.6g} is more than resampling can show"

    def passes(index: int, tests: int) -> bool:
        found = decision(index, tests)
        return tests == 1 or (isinstance(found, Decision) and found.verdict == "PASS")

    count = len(members)
    able = [i for i, m in enumerate(members) if m.result is not None and m.result.verdict == "PASS"]
    tests = holm(count, able, passes)
    claims = [member.own(member.exit_code) for member in members]
    for index in able:
        confidence = stricter(policy, tests[index]).confidence
        claims[index] = _claim(claims[index], confidence, decision(index, tests[index]))
    rate = by_chance(count, policy.confidence)
    return Combined(
        candidates=count,
        confidence=policy.confidence,
        by_chance=rate.independent,
        at_most=rate.at_most,
        deciding="corrected" if deciding else "own",
        exit_code=worst([c.corrected_exit_code if deciding else c.exit_code for c in claims]),
        statement=statement(count, policy, deciding),
        claims=claims,
    )


def _claim(own: Claim, confidence: float, found: Decision | str) -> Claim:
    """A candidate's PASS, held to ``confidence``."""
    if isinstance(found, Decision) and found.verdict == "PASS":
        return own.model_copy(update={"confidence": confidence, "reason": found.headline})
    # A PASS that is withdrawn shows no damage: it is never a FAIL, whatever its gates say there.
    blocks = isinstance(found, str) or found.exit_code != 0
    return own.model_copy(
        update={
            "corrected": "INCONCLUSIVE",
            "corrected_exit_code": 3 if blocks else own.exit_code,
            "confidence": confidence,
            "reason": found if isinstance(found, str) else found.headline,
        }
    )


def chance(candidates: int, policy: Policy) -> str:
    """How often one of so many passes by chance, in words."""
    rate = by_chance(candidates, policy.confidence)
    return (
        f"of {candidates} candidates that are all at a limit, at least one passes by chance up to "
        f"{rate.independent:.0%} of the time (independent errors; {rate.at_most:.0%} at most)"
    )


def statement(candidates: int, policy: Policy, deciding: bool) -> str:
    """What the verdicts of several candidates are worth together, in words."""
    text = (
        f"Each verdict is at {policy.confidence * 100:.6g}% confidence, and "
        f"{chance(candidates, policy)}. The corrected verdicts (Holm) keep that at "
        f"{(1 - policy.confidence) * 100:.6g}%"
    )
    text += ", and decide." if deciding else "; with --family-wise they decide."
    unbounded = [
        gate.id for gate in policy.gates if gate.severity == "error" and gate.decide != "confident"
    ]
    if unbounded:
        text += f" No such rate holds for gates that a value alone passes: {', '.join(unbounded)}."
    return text


def one_of(candidates: int, policy: Policy) -> str:
    """What a run says of itself that was made beside others."""
    return (
        f"one of {candidates} candidates compared together: {chance(candidates, policy)}; "
        "combined.html in the directory above has the verdicts corrected for that"
    )
