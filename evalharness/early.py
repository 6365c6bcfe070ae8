"""Stopping early: the pass ends once every blocking gate on text is decided.

Documents come in a seeded random order, and the intervals looked at are those of a confidence
sequence (arXiv 2103.06476), which holds at whatever moment one stops; the result reports that same
interval. Task gates take no part: tasks run whole, after the texts.
"""

from __future__ import annotations

from evalharness.finish import judge
from evalharness.metrics import REGISTRY
from evalharness.run import Run
from evalharness.spec.policy import Gate, Policy


def _on_text(gate: Gate) -> bool:
    metric = REGISTRY[gate.metric]
    text = metric.records in ("tokens", "documents", "layers")
    return text and gate.severity == "error" and "task" not in gate.scope


def unwatched(policy: Policy) -> list[str]:
    """Warnings for the blocking gates that no sequence can decide, so that nothing stops early."""
    return [
        f"--stop-early: gate {gate.id} is on {gate.metric}, which has no confidence sequence, so "
        "every document is measured"
        for gate in policy.gates
        if _on_text(gate) and REGISTRY[gate.metric].totals is None
    ]


def decided(run: Run, policy: Policy) -> bool:
    """Whether the records so far decide every blocking gate on text, one way or the other."""
    watched = {gate.id for gate in policy.gates if _on_text(gate)}
    _, decision, _ = judge(run, policy)
    return bool(watched) and all(
        result.verdict in ("PASS", "FAIL")
        for result in decision.gates
        if (result.rule or result.id) in watched
    )
