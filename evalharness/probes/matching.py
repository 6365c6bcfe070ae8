"""Which module of the reference is held against which of the candidate: by name, never position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from evalharness.spec.result import Matching


@dataclass(frozen=True)
class PairedModule:
    """Two modules of one name."""

    name: str
    kind: Literal["block", "linear"]
    type: str  # class name on the reference side
    block: str | None  # the decoder block it is, or lies in; None: outside any
    reference: nn.Module
    candidate: nn.Module


def match(reference: nn.Module, candidate: nn.Module) -> tuple[list[PairedModule], Matching]:
    """Pair every decoder block and every linear module by name and kind."""
    ref, cand = _modules(reference), _modules(candidate)
    blocks = [n for n, (kind, _) in ref.items() if kind == "block"]
    pairs, unmatched = [], []
    for name, (kind, module) in ref.items():
        other = cand.get(name)
        if other is None or other[0] != kind or not _same_width(module, other[1]):
            unmatched.append(f"{name} ({type(module).__name__})")
            continue
        home = next((b for b in blocks if name == b or name.startswith(b + ".")), None)
        pairs.append(PairedModule(name, kind, type(module).__name__, home, module, other[1]))
    paired = {p.name for p in pairs}
    rest = [f"{n} ({type(m).__name__})" for n, (_, m) in cand.items() if n not in paired]
    return pairs, Matching(
        exact=len(pairs), unmatched_reference=unmatched, unmatched_candidate=rest
    )


def _modules(model: nn.Module) -> dict[str, tuple[Literal["block", "linear"], nn.Module]]:
    found: dict[str, tuple[Literal["block", "linear"], nn.Module]] = {}
    blocks = decoder_blocks(model)
    for name, module in model.named_modules():
        if name in blocks:
            found[name] = ("block", module)
        elif is_linear(module):
            found[name] = ("linear", module)
    return found


def decoder_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The model's decoder blocks by name: the members of its longest list of like modules."""
    best: tuple[str, nn.ModuleList] | None = None
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            weights = any(True for _ in module[0].parameters())
            if weights and (best is None or len(module) > len(best[1])):
                best = (name, module)
    if best is None:
        return {}
    name, members = best
    return {f"{name}.{i}": m for i, m in enumerate(members)}


def is_linear(module: nn.Module) -> bool:
    """True for linear layers in any storage (plain, quantised, GPT-2's Conv1D)."""
    return (
        isinstance(module, nn.Linear)
        or type(module).__name__ == "Conv1D"
        or (hasattr(module, "in_features") and hasattr(module, "out_features"))
    )


def _same_width(a: Any, b: Any) -> bool:
    widths = [getattr(m, "out_features", getattr(m, "nf", None)) for m in (a, b)]
    return widths[0] == widths[1]
