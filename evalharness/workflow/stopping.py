"""Stopping early: the pass ends once every blocking gate on text is decided.

Documents come in a seeded random order. With ``--stop-early`` gates are looked at after every
block, on intervals that hold at whatever moment one stops: an asymptotic confidence sequence for
means (arXiv 2103.06476), betting for shares of documents (2010.09686). With ``--looks N`` they are
looked at N times, equally spaced, each metric's own interval made at the confidence of that look
under O'Brien–Fleming spending: any metric will do, and the last look costs almost nothing. Which
of the two, and the looks taken, are in the manifest, so that whoever judges the run again does so
with the interval that is valid after stopping (`metrics/estimates.py`). Task gates take no part:
tasks run whole, after the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evalharness.errors import InputError
from evalharness.gates import Decision
from evalharness.metrics import REGISTRY
from evalharness.metrics.kept_sums import KeptEstimates, KeptSums
from evalharness.results.judge import decide_on, judge
from evalharness.run.directory import Run
from evalharness.run.part import Part
from evalharness.spec.policy import Gate, Policy

if TYPE_CHECKING:
    from evalharness.data.windows import Window

MOST_LOOKS = 20


def stopping(stop_early: bool, looks: int | None) -> dict[str, Any] | None:
    """How a run may stop early, as the manifest says it; None: not at all."""
    if looks is None:
        return {"rule": "sequence"} if stop_early else None
    if stop_early:
        raise InputError(
            "stops by planned looks, and --stop-early by a sequence: give one of them",
            key="--looks",
            remedy="--looks 5 loses least when the case is close, --stop-early when it is clear.",
        )
    if not 2 <= looks <= MOST_LOOKS:
        raise InputError(
            f"must be from 2 to {MOST_LOOKS} (got {looks})",
            key="--looks",
            remedy="Five is customary; to look at every moment there is --stop-early.",
        )
    return {"rule": "looks", "looks": looks, "taken": []}


def look_shares(blocks: Sequence[Sequence[Window]], looks: int) -> dict[int, float]:
    """The blocks after which there is a look, with the share of the documents seen by then.

    The first block that reaches each k/``looks`` of the documents; the last block always.
    """
    seen: list[int] = []
    for block in blocks:
        seen.append((seen[-1] if seen else 0) + len({window.document for window in block}))
    shares: dict[int, float] = {}
    for k in range(1, looks + 1):
        number = next((i for i, n in enumerate(seen) if n * looks >= k * seen[-1]), None)
        if number is not None:
            shares[number] = seen[number] / seen[-1]
    return shares


def look(run: Run, share: float) -> None:
    """Take note of a look before it is taken."""
    known = run.manifest["stop_early"] or {}
    if share not in known["taken"]:
        run.update(stop_early={**known, "taken": [*known["taken"], share]})


def _on_text(gate: Gate) -> bool:
    metric = REGISTRY[gate.metric]
    text = metric.records in ("tokens", "documents", "layers")
    return text and gate.severity == "error" and "task" not in gate.scope


def unwatched(policy: Policy) -> list[str]:
    """Warnings for the blocking gates that no sequence can decide, so that nothing stops early."""
    return [
        f"--stop-early: gate {gate.id} is on {gate.metric}, which has no confidence sequence, so "
        "every document is measured (--looks 5 can stop early on any metric)"
        for gate in policy.gates
        if _on_text(gate) and REGISTRY[gate.metric].totals is None
    ]


class Looks:
    """The looks at a run while its blocks come in.

    A look is at the blocks of texts in their order and at nothing else that the run may hold, so
    that one that is resumed stops where it would have.
    """

    def __init__(self, run: Run, policy: Policy) -> None:
        self._policy, self._run = policy, run
        self._watched = {gate.id for gate in policy.gates if _on_text(gate)}
        self._blocks: list[str] = []
        self._kept = KeptSums(run)

    def add(self, block: str) -> None:
        """Take in the next block, which is recorded."""
        self._blocks.append(block)
        self._kept.add(block)

    def decided(self) -> bool:
        """Whether the records so far decide every blocking gate on text, one way or the other."""
        if not self._watched:
            return False
        try:
            return self._decided()
        except InputError:
            # Nothing of a corpus or slice has come yet; what is really wrong is said at the end.
            return False
        finally:
            self._kept.close()

    def _decided(self) -> bool:
        sequence = (self._run.manifest["stop_early"] or {}).get("rule") == "sequence"
        if sequence:  # after every block, so that it must not cost what all of them do
            decision, _ = decide_on(KeptEstimates(self._kept), self._policy, comparable=True)
            if not self._all(decision) or self._policy.baseline is None:
                return self._all(decision)
        # Whether a baseline is of the same data takes reading all of it.
        return self._all(judge(Part(self._run, self._blocks), self._policy)[1])

    def _all(self, decision: Decision) -> bool:
        return all(
            result.verdict in ("PASS", "FAIL")
            for result in decision.gates
            if (result.rule or result.id) in self._watched
        )
