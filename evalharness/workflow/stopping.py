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
from evalharness.metrics import REGISTRY
from evalharness.results.judge import judge
from evalharness.run.directory import Run
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


def decided(run: Run, policy: Policy) -> bool:
    """Whether the records so far decide every blocking gate on text, one way or the other."""
    watched = {gate.id for gate in policy.gates if _on_text(gate)}
    try:
        _, decision, _ = judge(run, policy)
    except InputError:
        # Nothing of a corpus or slice has come yet; what is really wrong is said at the end.
        return False
    return bool(watched) and all(
        result.verdict in ("PASS", "FAIL")
        for result in decision.gates
        if (result.rule or result.id) in watched
    )
