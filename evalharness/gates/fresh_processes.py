"""Gates on times, held against how a suite takes them: before any model is loaded.

Times of one process decide nothing (`stats/processes.py`). Where a gate on them is bound to block
it is refused; where it is bound to be undecided and may be, that is said.
"""

from __future__ import annotations

from evalharness.gates.limits import about, fewest
from evalharness.metrics import REGISTRY
from evalharness.spec.policy import Gate, Policy


def check_processes(policy: Policy, processes: int | None) -> list[str]:
    """What can be said of the gates of ``policy`` that are on times.

    Parameters
    ----------
    processes : fresh ones that the suite's probe `latency` asks for; None: it has no such probe.

    Raises
    ------
    InputError : a blocking gate takes more processes than there will be.

    """
    notes = []
    for gate in policy.gates:
        conditions = gate.unless.any if gate.unless else ()
        for metric, what in (
            (gate.metric, f"gate {gate.id} is on"),
            *((c.metric, f"gate {gate.id}: its looser limit is not earned by") for c in conditions),
        ):
            least = fewest(about(gate, metric))
            if not REGISTRY[metric].of_processes or (processes or 0) >= least:
                continue
            if processes is not None and metric == gate.metric and _blocks(gate):
                raise gate.error(
                    f"{metric} is decided over {least} fresh processes or more, and this suite "
                    f"measures it in {processes}: the gate could only be INCONCLUSIVE",
                    ("metric",),
                    f"Set `latency: {{processes: {least}}}` in the suite (each of them loads both "
                    "models again), or give the gate severity: warn.",
                )
            notes.append(f"{what} {metric}, which {_how(processes, least)}")
    return notes


def _blocks(gate: Gate) -> bool:
    return gate.severity == "error" and gate.on_inconclusive == "block"


def _how(processes: int | None, least: int) -> str:
    wanted = f"`latency: {{processes: {least}}}` in the suite"
    if processes is None:
        return (
            f"is decided over {least} fresh processes, and this suite has no probe `latency`: add "
            f"it, with {wanted}"
        )
    return (
        f"is decided over {least} fresh processes, and this suite measures it in {processes}, "
        f"which decides nothing: set {wanted}"
    )
