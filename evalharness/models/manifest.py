"""The compression manifest: what is compressed, measured from the tensors of the loaded model.

Never "4-bit" alone: tensors stored alike form a group with its scheme, its count and its bits per
weight, scales and zero points included. What the model file claims is put beside it, and where the
two differ `disagreements` says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalharness.models.fingerprint import tokenizer_fingerprint, weights_fingerprint
from evalharness.models.headers import gguf_tensors
from evalharness.models.simulate import Quantized
from evalharness.models.storage import Stored, stored
from evalharness.spec.model import Manifest, ModelSpec
from evalharness.spec.result import SideManifest, TensorGroup

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

_EXAMPLES = 3
_TOLERANCE = 0.05  # bits


def measure(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    spec: ModelSpec,
    place: Path,
    source: str,
    simulated: dict[str, Quantized] | None = None,
) -> SideManifest:
    """Measure ``model``.

    Parameters
    ----------
    spec : what its file claims, and the name.
    place : the file or directory of the weights; ``source`` is how a reader would name it.
    simulated : what `fake_quantize` returned.

    """
    tensors = list(stored(model, simulated or {}))
    parameters = sum(t.parameters for t in tensors)
    bits = sum(t.bits for t in tensors)
    claimed: dict[str, Any] = spec.manifest.model_dump(exclude_none=True)
    if place.suffix == ".gguf":
        claimed["file"] = file_types(place)
    return SideManifest(
        name=spec.name,
        source=source,
        architecture=type(model).__name__,
        dtype=str(model.dtype).removeprefix("torch."),
        parameters=parameters,
        bits_per_weight=bits / parameters if parameters else 0.0,
        weight_bytes=-(-bits // 8),
        groups=group(tensors),
        claimed=claimed,
        disagreements=disagreements(spec.manifest, tensors),
        fingerprint=weights_fingerprint(model),
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
    )


def group(tensors: Iterable[Stored]) -> list[TensorGroup]:
    """Tensors stored alike together, the largest group first."""
    kinds: dict[str, list[Stored]] = {}
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


def disagreements(claim: Manifest, tensors: list[Stored]) -> list[str]:
    """Where the claimed bits and group size are not what was measured, in words."""
    found = []
    quantised = [t for t in tensors if t.code_bits is not None]
    kinds = ", ".join(dict.fromkeys(t.kind for t in quantised))
    if claim.bits is not None:
        if not quantised:
            dtypes = ", ".join(dict.fromkeys(t.kind for t in tensors))
            found.append(
                f"claims {claim.bits:g} bits, but no tensor is compressed (all are {dtypes})"
            )
        elif not any(_agrees(claim.bits, t) for t in quantised):
            found.append(f"claims {claim.bits:g} bits, but the weights are {kinds}")
    if claim.group_size is not None and quantised:
        sizes = {t.group_size for t in quantised}
        exact = [t for t in quantised if "grid" not in t.kind]
        if exact and claim.group_size not in sizes:
            found.append(f"claims groups of {claim.group_size}, but the weights are {kinds}")
    return found


def file_types(place: Path) -> str:
    """How a GGUF file stores its tensors, such as ``211 Q4_1, 61 F32``; the most frequent first."""
    try:
        from gguf import GGMLQuantizationType

        names = {int(t): t.name for t in GGMLQuantizationType}
    except ImportError:
        names = {}
    counts: dict[str, int] = {}
    for tensor in gguf_tensors(place, "model.path"):
        name = names.get(tensor.type, f"ggml type {tensor.type}")
        counts[name] = counts.get(name, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "GGUF: " + ", ".join(f"{count} {name}" for name, count in ordered)


def _agrees(bits: float, tensor: Stored) -> bool:
    """Return whether ``bits`` is between the bits of the codes and those with scales and zeros."""
    assert tensor.code_bits is not None
    whole = tensor.bits / tensor.parameters if "grid" not in tensor.kind else tensor.code_bits + 1
    low, high = min(tensor.code_bits, whole), max(tensor.code_bits, whole)
    return low - _TOLERANCE <= bits <= high + _TOLERANCE
