"""Which modules of a pair could be restored: those whose weights are not the same on both sides."""

from __future__ import annotations

import torch

from evalharness.pair.matching import PairedModule, match
from evalharness.pair.side import Side


def differing(reference: Side, candidate: Side) -> tuple[list[PairedModule], list[str]]:
    """The linears whose weights are not the same, and what differs beside them."""
    pairs, matching = match(reference.model, candidate.model)
    linears = [p for p in pairs if p.kind == "linear" and not _same_weights(p)]
    kept = [p for p in linears if _takes_the_same(p)]
    inside = {
        id(t)
        for p in pairs
        if p.kind == "linear"
        for m in (*p.references, *p.candidates)
        for t in m.parameters()
    }
    theirs = dict(candidate.model.named_parameters())
    others = [
        name
        for name, value in reference.model.named_parameters()
        if id(value) not in inside
        and name in theirs
        and not (
            theirs[name].shape == value.shape
            and torch.equal(theirs[name].to(value.device, value.dtype), value)
        )
    ]
    notes = []
    if others:
        notes.append(
            f"{len(others)} tensors outside the linear modules differ too and are not restored: "
            + ", ".join(others[:3])
        )
    if len(kept) < len(linears):
        names = [p.name for p in linears if p not in kept]
        notes.append(
            f"{len(names)} modules take inputs of another width and cannot be restored: "
            + ", ".join(names[:3])
        )
    unmatched = [*matching.unmatched_reference, *matching.unmatched_candidate]
    if unmatched:
        notes.append(
            f"{len(unmatched)} modules have no counterpart and cannot be restored: "
            + ", ".join(unmatched[:3])
        )
    return kept, notes


def _takes_the_same(pair: PairedModule) -> bool:
    """Whether every module of a pair takes inputs of one width, as far as it says."""
    widths = {getattr(m, "in_features", None) for m in (*pair.references, *pair.candidates)}
    return len(widths - {None}) <= 1


def _same_weights(pair: PairedModule) -> bool:
    if len(pair.references) != len(pair.candidates):
        return False
    a, b = (dict(m.state_dict()) for m in (pair.reference, pair.candidate))
    if a.keys() != b.keys() or type(pair.reference) is not type(pair.candidate):
        return False
    return all(
        type(a[k]) is type(b[k])
        and a[k].dtype == b[k].dtype
        and a[k].shape == b[k].shape
        and torch.equal(a[k], b[k].to(a[k].device))
        for k in a
    )
