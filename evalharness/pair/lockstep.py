"""Two forward passes that advance block by block, in turn.

The reference runs one decoder block and stops; the candidate runs the same block, compares, and
hands back. Only one block's activations of the other model are ever kept, whatever the depth, and
each model runs its own unchanged forward, so any architecture works. The two are greenlets of one
thread: no locks, exceptions arrive in the caller, and the compute threads of the CPU are not
fought over by two pools.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet
from torch import nn

T = TypeVar("T")

# What a watcher is told: which pair of blocks, the module, its inputs by place and name, output.
Watcher = Callable[[int, nn.Module, tuple[Any, ...], dict[str, Any], Any], None]


def lockstep(
    run_reference: Callable[[], T],
    run_candidate: Callable[[], T],
    blocks: list[tuple[nn.Module, nn.Module]],
    on_reference: Watcher,
    on_candidate: Watcher,
) -> tuple[T, T]:
    """Run both, switching after each of ``blocks`` (reference module, candidate module).

    ``on_reference`` is called when the reference has finished a block, then ``on_candidate`` when
    the candidate has finished the same one. A watcher may call blocks itself: such a call is no
    step of either pass.
    """
    results: dict[str, T] = {}
    watching: list[int] = []
    caller = getcurrent()

    def first() -> None:
        results["reference"] = run_reference()
        second_let.switch()

    def second() -> None:
        results["candidate"] = run_candidate()

    first_let = greenlet(first, parent=caller)
    second_let = greenlet(second, parent=caller)
    handles = []
    try:
        for index, (reference, candidate) in enumerate(blocks):
            handles.append(
                reference.register_forward_hook(
                    _after(index, on_reference, second_let, watching), with_kwargs=True
                )
            )
            handles.append(
                candidate.register_forward_hook(
                    _after(index, on_candidate, first_let, watching), with_kwargs=True
                )
            )
        # The reference starts. Each hook switches to the other side; when the reference's forward
        # is through, the candidate runs on to its own end, which comes back here.
        first_let.switch()
        if "candidate" not in results:
            raise RuntimeError("the two models do not run the same sequence of blocks")
    finally:
        for handle in handles:
            handle.remove()
        for let in (first_let, second_let):
            if let and not let.dead:
                let.throw()
    return results["reference"], results["candidate"]


def _after(
    index: int, watcher: Watcher, other: greenlet, watching: list[int]
) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if watching:
            return
        watching.append(index)
        try:
            watcher(index, module, args, kwargs, output)
        finally:
            watching.clear()
        if not other.dead:
            other.switch()

    return hook
