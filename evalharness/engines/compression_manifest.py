"""The compression manifest: what is compressed, measured from the tensors of the loaded model.

Never "4-bit" alone: tensors stored alike form a group with its scheme, its count and its bits per
weight, scales and zero points included. What the model file claims is put beside it, and where the
two differ `disagreements` says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalharness.engines.file_headers import GgufTensor, gguf_tensors
from evalharness.engines.fingerprint import (
    configuration_fingerprint,
    tokenizer_fingerprint,
    weights_fingerprint,
)
from evalharness.engines.simulate import Quantized
from evalharness.engines.tensor_storage import StoredTensor, stored_tensors
from evalharness.spec.model import Claims, ModelSpec
from evalharness.spec.result import CompressionManifest, TensorGroup

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

_EXAMPLES = 3
_TOLERANCE = 0.05  # bits


def compression_manifest(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    spec: ModelSpec,
    place: Path | None,
    source: str,
    simulated: dict[str, Quantized] | None = None,
) -> CompressionManifest:
    """Measure ``model``.

    Parameters
    ----------
    spec : what its file claims, and the name.
    place : the file or directory of the weights, if there is one.
    source : how a reader would name it.
    simulated : what `fake_quantize` returned.

    """
    tensors = list(stored_tensors(model, simulated or {}))
    parameters = sum(t.parameters for t in tensors)
    bits = sum(t.bits for t in tensors)
    claimed: dict[str, Any] = spec.manifest.model_dump(exclude_none=True)
    file = gguf_tensors(place, "model.path") if place and place.suffix == ".gguf" else []
    if file:
        claimed["file"] = file_types(file)
    return CompressionManifest(
        name=spec.name,
        source=source,
        architecture=type(model).__name__,
        dtype=str(model.dtype).removeprefix("torch."),
        parameters=parameters,
        bits_per_weight=bits / parameters if parameters else 0.0,
        weight_bytes=-(-bits // 8),
        groups=group(tensors),
        claimed=claimed,
        disagreements=disagreements(spec.manifest, tensors, file),
        fingerprint=weights_fingerprint(model),
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        configuration_fingerprint=configuration_fingerprint(model),
    )


def group(tensors: Iterable[StoredTensor]) -> list[TensorGroup]:
    """Tensors stored alike together, the largest group first."""
    kinds: dict[str, list[StoredTensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.kind, []).append(tensor)
    groups = []
    for kind, members in kinds.items():
        count = sum(t.parameters for t in members)
        zeros = sum(t.zeros for t in members)
        groups.append(
            TensorGroup(
                storage=kind.replace("with zeros", f"({zeros / count:.0%} exact zeros)"),
                tensors=len(members),
                parameters=count,
                bits_per_weight=sum(t.bits for t in members) / count if count else 0.0,
                examples=[t.name for t in members[:_EXAMPLES]],
            )
        )
    return sorted(groups, key=lambda g: (-g.parameters, g.storage))


def disagreements(
    claim: Claims, tensors: list[StoredTensor], file: Sequence[GgufTensor] = ()
) -> list[str]:
    """Where the claimed bits and group size are not what was measured, in words.

    A claim of bits may mean the codes alone or the scales too: 4 and 4.5 both fit int4 in groups
    of 32. ``file`` is the table of a GGUF file, whose types count where the model was left dense.
    """
    quantised = [t for t in tensors if t.code_bits is not None]
    exact = [t for t in quantised if not t.on_grid]
    packed = [] if exact else [t for t in file if _packed_bits(t) is not None]
    kinds = ", ".join(dict.fromkeys([*(t.kind for t in quantised), *(t.type_name for t in packed)]))
    found = []
    if claim.bits is not None:
        ranges = [_range(t) for t in quantised] + [r for t in packed if (r := _packed_bits(t))]
        if not ranges:
            dtypes = ", ".join(dict.fromkeys(t.kind for t in tensors))
            found.append(
                f"claims {claim.bits:g} bits, but no tensor is compressed (all are {dtypes})"
            )
        elif not any(low - _TOLERANCE <= claim.bits <= high + _TOLERANCE for low, high in ranges):
            found.append(f"claims {claim.bits:g} bits, but the weights are {kinds}")
    if claim.group_size and exact and claim.group_size not in {t.group_size for t in exact}:
        found.append(f"claims groups of {claim.group_size}, but the weights are {kinds}")
    return found


def file_types(tensors: Sequence[GgufTensor]) -> str:
    """How a GGUF file stores its tensors: ``211 Q4_1, 61 F32; 5.01 bits per weight``."""
    counts = Counter(t.type_name for t in tensors).most_common()
    text = "GGUF: " + ", ".join(f"{count} {name}" for name, count in counts)
    sizes = [t.bytes for t in tensors]
    weights = sum(math.prod(t.shape) for t in tensors)
    if not weights or None in sizes:
        return text
    return f"{text}; {8 * sum(s for s in sizes if s) / weights:.2f} bits per weight"


def _range(tensor: StoredTensor) -> tuple[float, float]:
    """Bits of the codes, and those with scales and zero points (of a grid: not known, up to 1)."""
    codes = tensor.code_bits or 0.0
    whole = codes + 1 if tensor.on_grid else tensor.bits / tensor.parameters
    return min(codes, whole), max(codes, whole)


def _packed_bits(tensor: GgufTensor) -> tuple[float, float] | None:
    """Return the same of a quantised GGUF type: 4 and 5 for Q4_1; None for a float type."""
    digits = "".join(c for c in tensor.type_name.partition("_")[0] if c.isdigit())
    if tensor.bytes is None or tensor.type_name in ("F32", "F16", "BF16"):
        return None
    return float(digits), 8 * tensor.bytes / max(1, math.prod(tensor.shape))
