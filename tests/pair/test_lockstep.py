"""Lock-step execution: the order of things, and that it changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from evalharness.pair.lockstep import lockstep


def stack(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))


def test_blocks_run_in_turn_and_outputs_are_the_models_own() -> None:
    """Reference block, candidate block, reference block, …"""
    a, b, x = stack(0), stack(1), torch.ones(2, 4)
    order: list[str] = []

    def watch(side: str) -> Any:
        return lambda i, module, args, kwargs, out: order.append(f"{side}{i}")

    ref, cand = lockstep(
        lambda: a(x), lambda: b(x), list(zip(a, b, strict=True)), watch("r"), watch("c")
    )
    assert order == ["r0", "c0", "r1", "c1", "r2", "c2"]
    assert torch.equal(ref, a(x))
    assert torch.equal(cand, b(x))
    assert not a[0]._forward_hooks


@pytest.mark.parametrize("broken", [0, 1])
def test_an_error_in_either_model_reaches_the_caller(broken: int) -> None:
    """And no hook stays behind."""
    models, x = (stack(0), stack(1)), torch.ones(2, 4)

    def fail(*_: Any) -> None:
        raise ValueError("module broke")

    models[broken][1].register_forward_pre_hook(fail)
    ignore: Any = lambda *_: None  # noqa: E731
    with pytest.raises(ValueError, match="module broke"):
        lockstep(
            lambda: models[0](x),
            lambda: models[1](x),
            list(zip(*models, strict=True)),
            ignore,
            ignore,
        )
    assert not models[0][0]._forward_hooks
    assert not models[1][0]._forward_hooks
