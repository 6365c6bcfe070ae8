"""Put modules of the reference in the candidate's place, and take them out again.

A candidate's module runs the reference's forward, with the reference's weights, whatever storage
either side uses; nothing is copied, and leaving the context brings the candidate back bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from evalharness.pair.matching import PairedModule


@contextmanager
def restored(pairs: Iterable[PairedModule]) -> Iterator[None]:
    """Run these modules of the candidate as the reference has them."""
    with replaced(
        (module, _part(pair.references, pair.candidates, i))
        for pair in pairs
        for i, module in enumerate(pair.candidates)
    ):
        yield


@contextmanager
def swapped(pairs: Iterable[PairedModule]) -> Iterator[None]:
    """Run these modules of the reference as the candidate has them."""
    with replaced(
        (module, _part(pair.candidates, pair.references, i))
        for pair in pairs
        for i, module in enumerate(pair.references)
    ):
        yield


@contextmanager
def replaced(forwards: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Give each module another forward."""
    before: list[tuple[nn.Module, Any]] = []
    try:
        for module, forward in forwards:
            before.append((module, module.__dict__.get("forward")))
            module.forward = forward
        yield
    finally:
        for module, own in reversed(before):
            if own is None:
                del module.forward
            else:
                module.forward = own


def returning(out: Any) -> Callable[..., Any]:
    """A forward that computes nothing and returns ``out``."""
    return lambda *args, **kwargs: out


def outputs(modules: tuple[nn.Module, ...], x: Tensor) -> Tensor:
    """What ``modules`` make of ``x`` side by side, on the device and in the dtype of ``x``."""
    outs = [_forward(m, like(x, m)).to(x.device) for m in modules]
    y = outs[0] if len(outs) == 1 else torch.cat(outs, -1)
    return y.to(x.dtype) if x.is_floating_point() else y


def like(x: Tensor, module: nn.Module) -> Tensor:
    """``x`` on the device, and in the dtype, that ``module`` computes in."""
    for tensor in module.parameters():
        if tensor.is_floating_point():
            return x.to(tensor.device, tensor.dtype)
    return x


def _part(
    others: tuple[nn.Module, ...], own: tuple[nn.Module, ...], i: int
) -> Callable[..., Tensor]:
    """The forward of ``own[i]``: what ``others`` compute, or its share where they are fused."""
    # Bound now: a module that is itself being replaced keeps what it was.
    forwards = [m.forward for m in others]

    def forward(x: Tensor) -> Tensor:
        outs = [f(like(x, m)).to(x) for f, m in zip(forwards, others, strict=True)]
        y = outs[0] if len(outs) == 1 else torch.cat(outs, -1)
        if len(own) == 1:
            return y
        sizes: list[Any] = [m.out_features for m in own]
        share: Tensor = torch.split(y, sizes, -1)[i]
        return share

    return forward


def _forward(module: nn.Module, x: Tensor) -> Tensor:
    """The module's own computation; whoever watches its calls is not told."""
    out: Tensor = module.forward(x)
    return out
