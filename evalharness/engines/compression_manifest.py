"""The compression manifest: what is compressed, measured from the tensors of the loaded model.

Never "4-bit" alone: tensors stored alike form a group with its scheme, its count and its bits per
weight, scales and zero points included. What the model file and the checkpoint claim is put beside
it (`engines.claims`), and what ships in files is counted apart (`engines.shipped`): a GGUF file is
dense once it is loaded, and small where it is deployed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalharness.engines.claims import (
    against_checkpoint,
    against_kernel,
    checkpoint,
    disagreements,
    file_types,
    packed_share,
    quoted,
)
from evalharness.engines.file_groups import gguf_groups
from evalharness.engines.file_headers import GgufTensor, gguf_tensors
from evalharness.engines.fingerprint import (
    configuration_fingerprint,
    tokenizer_fingerprint,
    weights_fingerprint,
)
from evalharness.engines.gguf_metadata import gguf_metadata
from evalharness.engines.recipe import Made
from evalharness.engines.shipped import shipped
from evalharness.engines.tensor_storage import StoredTensor, miscounted, stored_tensors
from evalharness.engines.treatment import compressed_share, sparsity, treatment
from evalharness.spec.model import ModelSpec
from evalharness.spec.result import CompressionManifest, TensorGroup

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

_EXAMPLES = 3


def compression_manifest(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    spec: ModelSpec,
    place: Path | None,
    source: str,
    simulated: Mapping[str, Made] | None = None,
) -> CompressionManifest:
    """Measure ``model``.

    Parameters
    ----------
    spec : what its file claims, and the name.
    place : the file or directory of the weights, if there is one.
    source : how a reader would name it.
    simulated : what `recipe.simulate` returned.

    """
    tensors = list(stored_tensors(model, simulated or {}))
    parameters = sum(t.parameters for t in tensors)
    wrong = miscounted(model, tensors)
    bits = None if wrong else sum(t.bits for t in tensors)
    claimed: dict[str, Any] = spec.manifest.model_dump(exclude_none=True)
    file = gguf_tensors(place, "model.path") if place and place.suffix == ".gguf" else []
    config = {} if spec.quantization else checkpoint(place)
    if file and place:
        claimed["file"] = file_types(file)
        claimed |= gguf_metadata(place, "model.path")
    if config:
        claimed["checkpoint"] = quoted(config)
    how = treatment(
        model,
        tensors,
        simulated=spec.simulate is not None,
        unpacked=bool(config) or (bool(file) and spec.quantization is None),
    )
    if _in_file(file, tensors):
        stored = ", ".join(g.storage for g in gguf_groups(file)[:_EXAMPLES])
        how = replace(how, format=f"{stored}, unpacked to {how.format}")
    if spec.adapter is not None:
        how = replace(how, format=f"{how.format}; {_adapter(tensors)}")
    share = packed_share(file) if _in_file(file, tensors) else compressed_share(tensors)
    zeros, in_pattern = sparsity(tensors)
    files = shipped(spec, place)
    counted = None if bits is None else -(-bits // 8)
    size, reason = (counted, wrong) if files is None else (files.bytes, files.reason or wrong)
    return CompressionManifest(
        name=spec.name,
        source=source,
        architecture=type(model).__name__,
        dtype=str(model.dtype).removeprefix("torch."),
        parameters=parameters,
        bits_per_weight=_bits_per_weight(size, bits if files is None else None, parameters, wrong),
        weight_bytes=size,
        ships="tensors" if files is None else "files",
        counted_bits_per_weight=_bits_per_weight(counted, bits, parameters, wrong),
        counted_bytes=counted,
        resident_bytes=None if wrong else -(-sum(t.resident_bits for t in tensors) // 8),
        not_measured=reason or None,
        **asdict(how),
        compressed_share=share,
        sparsity=zeros,
        two_of_four=in_pattern,
        file_groups=gguf_groups(file),
        groups=group(tensors),
        claimed=claimed,
        disagreements=[
            *disagreements(spec.manifest, tensors, file),
            *against_kernel(spec.manifest, how),
            *against_checkpoint(config, tensors, how),
        ],
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
        zeros = sum(t.zeros or 0 for t in members)
        groups.append(
            TensorGroup(
                storage=kind.replace("with zeros", f"({zeros / max(count, 1):.0%} exact zeros)"),
                tensors=len(members),
                parameters=count,
                bits_per_weight=sum(t.bits for t in members) / count if count else 0.0,
                examples=[t.name for t in members[:_EXAMPLES]],
            )
        )
    return sorted(groups, key=lambda g: (-g.parameters, g.storage))


def _adapter(tensors: Iterable[StoredTensor]) -> str:
    """Whether an adapter is part of the weights."""
    beside = sum(t.parameters for t in tensors if ".lora_" in t.name)
    return f"adapter beside them, {beside:,} weights" if beside else "adapter merged into them"


def _bits_per_weight(
    size: int | None, bits: int | None, parameters: int, wrong: str
) -> float | None:
    """Exact bits where they are counted; those of the bytes in files otherwise."""
    if wrong or size is None:
        return None
    return (8 * size if bits is None else bits) / parameters if parameters else 0.0


def _in_file(file: Sequence[GgufTensor], tensors: Iterable[StoredTensor]) -> bool:
    """Whether only the file tells what is compressed: loading made its weights dense."""
    return bool(file) and all(t.code_bits is None or t.on_grid for t in tensors)
