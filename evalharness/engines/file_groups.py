"""What a file of weights stores, by its own table: groups of tensors that are stored alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from evalharness.engines.file_headers import GgufTensor
from evalharness.spec.result import TensorGroup

_EXAMPLES = 3


def gguf_groups(tensors: Sequence[GgufTensor]) -> list[TensorGroup]:
    """Group the tensors of a GGUF file by type, the largest group first.

    Types whose size is not known count 0 bits, and the whole is then not measured.
    """
    kinds: dict[str, list[GgufTensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.type_name, []).append(tensor)
    groups = []
    for kind, members in kinds.items():
        count = sum(math.prod(t.shape) for t in members)
        held = [t.bytes for t in members]
        size = sum(b for b in held if b is not None) if None not in held else 0
        groups.append(
            TensorGroup(
                storage=f"GGUF {kind}",
                tensors=len(members),
                parameters=count,
                bits_per_weight=8 * size / count if count else 0.0,
                examples=[t.name for t in members[:_EXAMPLES]],
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
    found: dict[str, list[tuple[str, int, int]]] = {}  # (name, weights, bits) by storage
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
    groups = []
    for kind, members in found.items():
        weights = sum(count for _, count, _ in members)
        groups.append(
            TensorGroup(
                storage=f"ONNX {kind}",
                tensors=len(members),
                parameters=weights,
                bits_per_weight=sum(b for _, _, b in members) / weights if weights else 0.0,
                examples=[name for name, _, _ in members[:_EXAMPLES]],
            )
        )
    return sorted(groups, key=lambda g: (-g.parameters, g.storage))
