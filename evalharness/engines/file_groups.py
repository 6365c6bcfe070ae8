"""What a file of weights stores, by its own table: groups of tensors that are stored alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from evalharness.engines.file_headers import GgufTensor
from evalharness.spec.result import TensorGroup

_EXAMPLES = 3
_Held = tuple[str, int, int | None]  # a tensor: its name, weights, and bits where they are known


def gguf_groups(tensors: Sequence[GgufTensor]) -> list[TensorGroup]:
    """Group the tensors of a GGUF file by type, the largest group first.

    Types whose size is not known count 0 bits, and the whole is then not measured.
    """
    kinds: dict[str, list[_Held]] = {}
    for tensor in tensors:
        size = None if tensor.bytes is None else 8 * tensor.bytes
        held = (tensor.name, math.prod(tensor.shape), size)
        kinds.setdefault(f"GGUF {tensor.type_name}", []).append(held)
    return _groups(kinds)


def _groups(kinds: dict[str, list[_Held]]) -> list[TensorGroup]:
    """One group for each kind of storage, the largest first."""
    groups = []
    for kind, members in kinds.items():
        weights = sum(count for _, count, _ in members)
        held = [bits for _, _, bits in members]
        size = sum(bits for bits in held if bits is not None) if None not in held else 0
        groups.append(
            TensorGroup(
                storage=kind,
                tensors=len(members),
                parameters=weights,
                bits_per_weight=size / weights if weights else 0.0,
                examples=[name for name, _, _ in members[:_EXAMPLES]],
            )
        )
    return sorted(groups, key=lambda g: (-g.parameters, g.storage))


# Bits of an element by ONNX's number of its type; types that are no weights are left out.
_ONNX = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    10: ("float16", 16),
    16: ("bfloat16", 16),
    17: ("float8 e4m3", 8),
    19: ("float8 e5m2", 8),
    21: ("uint4", 4),
    22: ("int4", 4),
}


def onnx_groups(file: Path) -> list[TensorGroup]:
    """Group the weights of an ONNX file by how they are stored, the largest group first.

    Blocks of low bits (MatMulNBits) count with their scales and zero points. Empty where the onnx
    library is not installed: what a model of this engine stores is then not measured.
    """
    if find_spec("onnx") is None:
        return []
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
    sizes = {
        t.name: (math.prod(t.dims), *_ONNX[t.data_type])
        for t in graph.initializer
        if t.data_type in _ONNX
    }
    found: dict[str, list[_Held]] = {}
    taken: set[str] = set()
    for node in graph.node:
        if node.op_type != "MatMulNBits":
            continue
        said = {a.name: a.i for a in node.attribute}
        parts = [name for name in node.input[1:] if name in sizes]
        bits = sum(sizes[name][0] * sizes[name][2] for name in parts)
        kind = f"int{said['bits']} in blocks of {said['block_size']}"
        found.setdefault(kind, []).append((parts[0], said["K"] * said["N"], bits))
        taken.update(parts)
    for name, (count, kind, bits) in sizes.items():
        if name not in taken and not name.endswith(("cos_cache", "sin_cache")):
            found.setdefault(kind, []).append((name, count, count * bits))
    return _groups({f"ONNX {kind}": members for kind, members in found.items()})
