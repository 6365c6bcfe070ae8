"""Which module of the reference is held against which of the candidate: by name, never position.

Three steps, in this order: the same name; the same name once wrappers are taken off (PEFT,
torch.compile, data parallelism, a multimodal shell); a declared fusion, where one module of one
side computes what several do on the other, compared as the concatenation of their outputs. What is
left is unmatched, listed, and passes no layer gate. Between models of different depth a block's
name is its position and no more, so no block, and nothing inside one, is matched.

Mixture-of-experts layers as transformers 5 builds them: the experts of a layer are one module with
three-dimensional weights, the router another; they are matched as modules of their own kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from evalharness.compat.torch import without_wrappers
from evalharness.compat.transformers import (
    expert_count,
    hidden_size,
    is_conv1d,
    is_expert_list,
    is_router,
)
from evalharness.spec.module_results import Matching

Kind = Literal["block", "linear", "experts", "router"]

# One module whose output is the others' outputs side by side, in this order (Llama against Phi-3,
# Qwen and Baichuan; vLLM fuses the same way). Layouts that interleave heads (GPT-NeoX, Falcon) are
# left out: their columns would be held against the wrong ones.
FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "W_pack": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


@dataclass(frozen=True)
class PairedModule:
    """A module of each side; several on one side where the other has them fused."""

    name: str  # on the reference side; of a fused pair, on the side that has one module
    kind: Kind
    type: str  # class name on the reference side
    block: str | None  # the decoder block it is, or lies in; None: outside any
    references: tuple[nn.Module, ...]
    candidates: tuple[nn.Module, ...]
    reference_names: tuple[str, ...]
    candidate_names: tuple[str, ...]

    @property
    def reference(self) -> nn.Module:
        """The module of the reference (the first of several)."""
        return self.references[0]

    @property
    def candidate(self) -> nn.Module:
        """The module of the candidate (the first of several)."""
        return self.candidates[0]


@dataclass(frozen=True)
class _Found:
    name: str  # as the model has it
    kind: Kind
    module: Any


def match(reference: nn.Module, candidate: nn.Module) -> tuple[list[PairedModule], Matching]:
    """Pair every decoder block and every linear module."""
    ref, cand = _modules(reference), _modules(candidate)
    blocks = [n for n, found in ref.items() if found.kind == "block"]
    same_hidden = not _differ(hidden_size(reference), hidden_size(candidate))
    same_depth = len(blocks) == sum(found.kind == "block" for found in cand.values())
    exact, pairs, renamed, fused = 0, [], [], []
    taken: set[str] = set()

    def home(key: str) -> str | None:
        block = next((b for b in blocks if key == b or key.startswith(b + ".")), None)
        return None if block is None else ref[block].name

    for key, one in ref.items():
        other = cand.get(key)
        if not same_depth and home(key) is not None:
            continue
        if other is not None and one.kind == other.kind:
            if not _alike(one, other, same_hidden):
                continue
            members: tuple[list[_Found], list[_Found]] = ([one], [other])
            names = [key]
            if one.name == other.name:
                exact += 1
            else:
                renamed.append(f"{one.name} ↔ {other.name}")
        else:
            group = _fusion(key, ref, cand)
            if group is None or group[2] & taken:
                continue
            members, names = group[:2], sorted(group[2])
            left, right = (" + ".join(m.name for m in side) for side in members)
            fused.append(f"{left} ↔ {right}")
        taken.update(names)
        a, b = members
        named = a[0].name if len(a) == 1 else b[0].name
        pairs.append(
            PairedModule(
                named,
                one.kind,
                type(one.module).__name__,
                home(key),
                tuple(m.module for m in a),
                tuple(m.module for m in b),
                tuple(m.name for m in a),
                tuple(m.name for m in b),
            )
        )
    rest = [
        [f"{f.name} ({type(f.module).__name__})" for key, f in side.items() if key not in taken]
        for side in (ref, cand)
    ]
    report = Matching(
        exact=exact,
        renamed=renamed,
        fused=fused,
        unmatched_reference=rest[0],
        unmatched_candidate=rest[1],
        notes=_notes(reference, candidate, ref, cand),
    )
    return pairs, report


def _alike(one: _Found, other: _Found, same_hidden: bool) -> bool:
    """Whether the outputs of two modules of one name have one width."""
    if one.kind == "linear":
        return _width([one]) == _width([other])
    if one.kind == "block":
        return same_hidden
    shapes = [{n: tuple(p.shape) for n, p in f.module.named_parameters()} for f in (one, other)]
    if one.kind == "router":
        return [s[0] for s in shapes[0].values()] == [s[0] for s in shapes[1].values()]
    return same_hidden and expert_count(one.module) == expert_count(other.module)


def _fusion(
    key: str, ref: dict[str, _Found], cand: dict[str, _Found]
) -> tuple[list[_Found], list[_Found], set[str]] | None:
    """Both sides of the declared fusion that ``key`` of the reference is in, and all its keys."""
    parent, _, leaf = key.rpartition(".")
    for whole, parts in FUSED.items():
        if leaf != whole and leaf != parts[0]:
            continue
        one, several = (ref, cand) if leaf == whole else (cand, ref)
        names = [f"{parent}.{part}" if parent else part for part in parts]
        at = f"{parent}.{whole}" if parent else whole
        if at not in one or any(n not in several for n in names) or at in several:
            continue
        a, b = [one[at]], [several[n] for n in names]
        if _width(a) != _width(b):
            continue
        return (a, b, {at, *names}) if leaf == whole else (b, a, {at, *names})
    return None


def _modules(model: nn.Module) -> dict[str, _Found]:
    """Blocks and linears by their name without wrappers."""
    found: dict[str, _Found] = {}
    blocks = decoder_blocks(model)
    inside: list[str] = []  # of a linear that is itself made of modules, such as one with LoRA
    for name, module in model.named_modules():
        if any(name.startswith(n) for n in inside):
            continue
        kind: Kind | None = "block" if name in blocks else _kind(name, module)
        if kind is None:
            continue
        if kind != "block":
            inside.append(name + ".")
        plain = without_wrappers(name)
        # Two modules of one plain name (a vision and a language tower) keep their full names.
        found[name if plain in found else plain] = _Found(name, kind, module)
    return found


def decoder_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The model's decoder blocks by name: the members of its longest list of like modules."""
    best: tuple[str, nn.ModuleList] | None = None
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) and not is_expert_list(name):
            weights = any(True for _ in module[0].parameters())
            if weights and (best is None or len(module) > len(best[1])):
                best = (name, module)
    if best is None:
        return {}
    name, members = best
    return {f"{name}.{i}": m for i, m in enumerate(members)}


def _kind(name: str, module: nn.Module) -> Kind | None:
    if is_linear(module):
        return "linear"
    if is_expert_list(name) and not isinstance(module, nn.ModuleList):
        return "experts"
    return "router" if is_router(module) else None


def is_linear(module: nn.Module) -> bool:
    """True for linear layers in any storage (plain, quantised, GPT-2's Conv1D)."""
    return (
        isinstance(module, nn.Linear)
        or is_conv1d(module)
        or (hasattr(module, "in_features") and hasattr(module, "out_features"))
    )


def tied_head(model: Any) -> bool | None:
    """Whether the head computes with the embedding's own weight; None where there is no telling."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    weights: list[Any] = [getattr(m, "weight", None) for m in (head, embedding)]
    if any(w is None or not hasattr(w, "data_ptr") for w in weights):
        return None
    a, b = weights
    return bool(a is b or 0 != a.data_ptr() == b.data_ptr())


def _notes(
    reference: nn.Module, candidate: nn.Module, ref: dict[str, _Found], cand: dict[str, _Found]
) -> list[str]:
    """What a reader must know before trusting the per-layer errors."""
    notes = []
    depths = [sum(f.kind == "block" for f in side.values()) for side in (ref, cand)]
    if depths[0] != depths[1]:
        notes.append(
            f"the depths differ ({depths[0]} and {depths[1]} blocks): a block's name is its "
            "position, so the errors of every block and of every module in one are undefined"
        )
    sizes = hidden_size(reference), hidden_size(candidate)
    if _differ(*sizes):
        notes.append(
            f"the hidden sizes differ ({sizes[0]} and {sizes[1]}): the error of every block, and "
            "of every linear of another width, is undefined"
        )
    if all(hasattr(m, "get_output_embeddings") for m in (reference, candidate)):
        tied = tied_head(reference), tied_head(candidate)
        if tied == (False, True):
            notes.append(
                "the candidate's head is tied to its embedding and the reference's is not: if the "
                "candidate was saved with a head of its own, loading it has replaced that head"
            )
    return notes


def _differ(a: int | None, b: int | None) -> bool:
    return a is not None and b is not None and a != b


def _width(side: list[_Found]) -> int | None:
    """Output columns of a linear, or of several side by side; None where a module does not say."""
    widths = [getattr(f.module, "out_features", getattr(f.module, "nf", None)) for f in side]
    return None if any(w is None for w in widths) else sum(int(w) for w in widths if w is not None)
