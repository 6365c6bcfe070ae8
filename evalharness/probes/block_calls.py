"""A block called again: its arguments, with other hidden states, on the device of another model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from evalharness.pair.matching import PairedModule


def same_input(pair: PairedModule) -> bool:
    """Whether both sides' modules take inputs of one width, as far as they say."""
    sizes = {getattr(m, "in_features", None) for m in (*pair.references, *pair.candidates)}
    return len(sizes - {None}) <= 1


def like(x: Tensor, other: Tensor | nn.Module) -> Tensor:
    """``x`` on the device, and in the dtype, of what is to be computed with it."""
    if isinstance(other, nn.Module):
        floating = (p for p in other.parameters() if p.is_floating_point())
        found = next(floating, None)
        if found is None:
            return x
        other = found
    # A module whose weights accelerate copies to the device moves its inputs itself.
    return x.to(x.device if other.is_meta else other.device, other.dtype)


def there(value: Any, module: nn.Module) -> Any:
    """An argument as ``module`` wants it; what is no tensor stays as it is."""
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point():
        return like(value, module)
    first = next((p for p in module.parameters()), value)
    return value if first.is_meta else value.to(first.device)
