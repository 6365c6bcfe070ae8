"""How far each weight of the candidate is from the reference's, one pair of tensors at a time.

For every matched linear, the embedding, the head, routers and fused experts: ‖W̃ − W‖ / ‖W‖, the
signal to quantisation noise ratio, the largest difference with its place, and the bits that the
candidate stores a weight in. No forward pass: each weight is read once, in slices of rows.

What is returned beside the records are the squared column norms of W̃ − W and of W. With the inputs
x of the module, Σ_tokens ‖(W̃ − W) diag(x)‖² = Σ_j Σ_tokens x_j² · ‖(W̃ − W)_j‖² is what AWQ
(arXiv 2306.00978) and GPTQ (arXiv 2210.17323; the diagonal of its Hessian) keep small: an error in
a column matters as much as the input that it meets. `probes.activations` sums it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from evalharness.engines.dequantize import dense_weight
from evalharness.engines.tensor_storage import stored_tensors
from evalharness.pair.matching import PairedModule
from evalharness.pair.side import Side
from evalharness.run.records import WEIGHTS

SLICE = 1 << 24  # weights compared at a time: 64 MiB of float32 a side


@dataclass(frozen=True)
class Columns:
    """Squared norms of the columns of one module's W̃ − W and W, (I,) float64."""

    error: Tensor
    reference: Tensor


@torch.no_grad()
def weight_errors(
    reference: Side, candidate: Side, pairs: Sequence[PairedModule]
) -> tuple[pa.Table, dict[str, Columns]]:
    """Compare the weights of ``pairs`` and the embeddings; rows of `records.WEIGHTS`."""
    bits = [_Bits(s) for s in (reference, candidate)]
    rows: list[dict[str, Any]] = []
    columns: dict[str, Columns] = {}
    for name, kind, members in _modules(reference, candidate, pairs):
        for tensor, a, b in _tensors(kind, members, (reference, candidate)):
            row = {
                "layer": name,
                "tensor": tensor,
                "kind": kind,
                **{f"storage_{s}": b.storage(m) for s, b, m in zip(("ref", "cand"), bits, members)},
                **{f"bits_{s}": b.of(m) for s, b, m in zip(("ref", "cand"), bits, members)},
            }
            if isinstance(a, str) or isinstance(b, str):
                rows.append(row | {"reason": a if isinstance(a, str) else b})
                continue
            found, norms = _compare(a, b, candidate.device)
            rows.append(row | found)
            if kind == "linear" and norms is not None:
                columns[name] = norms
    return pa.Table.from_pylist(rows, schema=WEIGHTS), columns


Members = tuple[tuple[nn.Module, ...], tuple[nn.Module, ...]]


def _modules(
    reference: Side, candidate: Side, pairs: Sequence[PairedModule]
) -> Iterator[tuple[str, str, Members]]:
    """Name, kind and modules of both sides: the embedding, then the pairs in order."""
    embeddings = [s.model.get_input_embeddings() for s in (reference, candidate)]
    if all(isinstance(m, nn.Module) for m in embeddings):
        name = next(str(n) for n, m in reference.model.named_modules() if m is embeddings[0])
        yield name, "embedding", ((embeddings[0],), (embeddings[1],))
    for pair in pairs:
        if pair.kind != "block":
            yield pair.name, pair.kind, (pair.references, pair.candidates)


def _tensors(
    kind: str, members: Members, sides: tuple[Side, Side]
) -> Iterator[tuple[str, Tensor | str, Tensor | str]]:
    """Name of each tensor with both sides' values, (O, I), or why there are none."""
    if kind == "experts":
        yield from _expert_tensors(members[0][0], members[1][0])
        return
    values: list[Tensor | str] = []
    for modules, side in zip(members, sides):
        try:
            parts = [dense_weight(m, side.model.dtype) for m in modules]
            values.append(parts[0] if len(parts) == 1 else torch.cat(parts))
        except (TypeError, RuntimeError, ValueError, NotImplementedError, ImportError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            values.append(f"the weight of {type(modules[0]).__name__} cannot be read ({first})")
    yield "weight", values[0], values[1]


def _expert_tensors(
    one: nn.Module, other: nn.Module
) -> Iterator[tuple[str, Tensor | str, Tensor | str]]:
    """Every expert's slice of the three-dimensional weights."""
    theirs = dict(other.named_parameters())
    for name, value in one.named_parameters():
        match = theirs.get(name)
        if value.dim() != 3:
            continue
        if match is None or match.shape != value.shape:
            yield name, "the candidate's experts are stored otherwise", ""
            continue
        for expert in range(len(value)):
            yield f"{name}[{expert}]", _plain(value[expert]), _plain(match[expert])


def _plain(value: Any) -> Tensor | str:
    if value.is_floating_point():
        dense: Tensor = value.dequantize() if hasattr(value, "__tensor_flatten__") else value
        return dense
    return f"{value.dtype} experts cannot be read"


def _compare(
    a_OI: Tensor, b_OI: Tensor, device: torch.device
) -> tuple[dict[str, Any], Columns | None]:
    """The columns of `records.WEIGHTS` that the values decide, and the column norms."""
    if a_OI.shape != b_OI.shape:
        shapes = " and ".join(str(list(t.shape)) for t in (a_OI, b_OI))
        return {"reason": f"the shapes differ: {shapes}"}, None
    rows, width = a_OI.shape
    if device.type == "mps":  # has no float64
        device = torch.device("cpu")
    error, square = (torch.zeros(width, dtype=torch.float64, device=device) for _ in range(2))
    largest, place = -1.0, 0
    step = max(1, SLICE // max(1, width))
    for start in range(0, rows, step):
        a, b = (t[start : start + step].to(device).float() for t in (a_OI, b_OI))
        delta = b - a
        error += torch.linalg.vector_norm(delta, dim=0).double().square()
        square += torch.linalg.vector_norm(a, dim=0).double().square()
        most, at = delta.abs_().flatten().max(0)
        if not float(most) <= largest:  # a NaN is larger than anything
            largest, place = float(most), start * width + int(at)
    found: dict[str, Any] = {
        "rows": rows,
        "columns": width,
        "err_sq": float(error.sum()),
        "ref_sq": float(square.sum()),
        "max_abs": largest,
        "max_abs_row": place // width,
        "max_abs_column": place % width,
    }
    return found, Columns(error, square)


class _Bits:
    """How the modules of one side are stored."""

    def __init__(self, side: Side) -> None:
        self._all = list(stored_tensors(side.model, side.loaded.simulated))
        self._names = {id(m): n for n, m in side.model.named_modules()}
        self._embedding = side.model.get_input_embeddings()

    def _of(self, modules: tuple[nn.Module, ...]) -> list[Any]:
        prefixes = tuple(f"{self._names.get(id(m), '?')}." for m in modules)
        found = [t for t in self._all if t.name.startswith(prefixes)]
        # A tied tensor is listed once, under the embedding.
        if not found and len(modules) == 1 and modules[0] is not self._embedding:
            tied = getattr(modules[0], "weight", None) is getattr(self._embedding, "weight", self)
            return self._of((self._embedding,)) if tied else []
        return found

    def of(self, modules: tuple[nn.Module, ...]) -> float | None:
        """Stored bits a weight; values found on a grid count as what the grid takes."""
        found = self._of(modules)
        weights = sum(t.parameters for t in found)
        bits = sum(t.code_bits * t.parameters if t.on_grid else t.bits for t in found)
        return bits / weights if weights else None

    def storage(self, modules: tuple[nn.Module, ...]) -> str:
        """The largest tensor's storage in words."""
        found = self._of(modules)
        return str(max(found, key=lambda t: t.parameters).kind) if found else "unknown"
