"""How much a suite measures of what a gate is decided on, before anything is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from evalharness.metrics import Metric
from evalharness.metrics.task_groups import EVERY, outermost
from evalharness.spec.policy import Gate

Count = int | None  # None: not known
Weights = Mapping[str, float]  # of each task in a mean


@dataclass(frozen=True)
class Sizes:
    """How much a suite measures: documents by corpus and slice, items by task; None: not known."""

    documents: Mapping[str, Count]
    items: Mapping[str, Count]
    slices: Mapping[str, Count] = field(default_factory=dict)
    groups: Mapping[str, Weights] = field(default_factory=dict)  # of tasks
    probed: Count = None  # documents, at most, of the windows in which layers are watched


def unit_of(gate: Gate, info: Metric) -> str:
    """What a gate's sample is made of."""
    if info.of_processes:
        return "processes"
    return "items" if _of_tasks(gate, info) else "documents"


def held(gate: Gate, info: Metric, sizes: Sizes) -> Count:
    """Documents or items in the smallest scope that the gate is decided in; None: not known."""
    return _smallest(gate, info, sizes, lambda weights, counts: sum(counts))


def effective(gate: Gate, info: Metric, sizes: Sizes, alpha: float) -> Count:
    """The same, a mean over several taken for as many as would tell as much in one sample.

    Parameters
    ----------
    alpha : one-sided error of the verdict.

    """
    return _smallest(gate, info, sizes, _events(alpha) if info.rate else _alike)


Size = Callable[[Sequence[float], Sequence[int]], float]  # from weights and counts of several


def _smallest(gate: Gate, info: Metric, sizes: Sizes, size: Size) -> Count:
    if info.deterministic:
        return None
    if _of_tasks(gate, info) and "task" not in gate.scope and "group" in info.scope_keys:
        counts = _tasks(gate, sizes, size)
        return _least([*counts.values()], gate, size) if counts else None
    key, known = ("task", sizes.items) if _of_tasks(gate, info) else ("corpus", sizes.documents)
    if "layer" in info.scope_keys:
        return sizes.probed
    if "slice" in gate.scope:
        key, known = "slice", sizes.slices
    if key not in info.scope_keys or (not known and key not in gate.scope):
        return None
    glob = gate.scope.get(key)
    chosen = _matching(gate, key, glob, known)
    # Without a corpus the text metrics are over all documents; every task is decided by itself.
    if glob is None and key == "corpus":
        return None if None in chosen else sum(n for n in chosen if n is not None)
    return _least(chosen, gate, size if key != "slice" else None)


def _tasks(gate: Gate, sizes: Sizes, size: Size) -> Mapping[str, Count]:
    """Items of what the gate is decided in: the groups it names, or what the suite names."""
    groups = {name: _of_group(own, sizes, size) for name, own in sizes.groups.items()}
    glob = gate.scope.get("group")
    if glob is not None:
        _matching(gate, "group", glob, groups)
        return {name: n for name, n in groups.items() if fnmatchcase(name, glob)}
    leaves = {name: {name} for name in sizes.items}
    leaves |= {name: set(own) for name, own in sizes.groups.items() if name != EVERY}
    named = list(leaves)
    outer = [named[k] for k in outermost(list(leaves.values()))]
    return {name: {**sizes.items, **groups}[name] for name in outer}


def _of_group(weights: Weights, sizes: Sizes, size: Size) -> Count:
    counts = [sizes.items[task] for task in weights]
    known = [n for n in counts if n]
    return math.floor(size([*weights.values()], known)) if len(known) == len(counts) else None


def _least(counts: Sequence[Count], gate: Gate, size: Size | None) -> Count:
    """The smallest of several that are decided one by one, or what their mean comes to."""
    known = [n for n in counts if n is not None]
    if len(known) < len(counts):
        return None
    if gate.aggregate == "mean" and size is not None and min(known) > 0:
        return math.floor(size([1 / len(known)] * len(known), known))
    return min(known)


def _alike(weights: Sequence[float], counts: Sequence[int]) -> float:
    """Items that have the variance of a weighted mean over samples of ``counts`` (Kish 1965)."""
    return (1 + 1e-12) / math.fsum(w * w / n for w, n in zip(weights, counts, strict=True))


def _events(alpha: float) -> Size:
    """Items whose upper end without an event is that of the weighted mean (MOVER)."""

    def size(weights: Sequence[float], counts: Sequence[int]) -> float:
        ends = (w * -math.expm1(math.log(alpha) / n) for w, n in zip(weights, counts, strict=True))
        return (1 + 1e-12) * math.log(alpha) / math.log1p(-math.hypot(*ends))

    return size


def _of_tasks(gate: Gate, info: Metric) -> bool:
    keys = info.scope_keys
    named = "task" in gate.scope or "group" in gate.scope
    return named or ("corpus" not in keys and "task" in keys)


def _matching(gate: Gate, key: str, glob: str | None, known: Mapping[str, Count]) -> list[Count]:
    chosen = [n for name, n in known.items() if glob is None or fnmatchcase(name, glob)]
    if not chosen:
        raise gate.error(
            f"{key}={glob} matches nothing that the suite measures",
            ("scope", key),
            f"It has: {', '.join(known)}." if known else f"The suite names no {key}.",
        )
    return chosen
