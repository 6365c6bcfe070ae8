"""What a model ships as: the bytes of its tensors in the files that would be deployed.

GGUF: its tensor table. Directories: the headers of the safetensors files, and of pickled weights
their tensors without the data. Of an adapter its files are added to those of its base. What is
quantised on loading, or simulated, has no files yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

from evalharness.engines.file_headers import (
    GgufTensor,
    gguf_tensors,
    safetensors_header,
    weight_files,
)
from evalharness.spec.model import ModelSpec

_KEY = "model.path"


@dataclass(frozen=True)
class Shipped:
    """Bytes of the tensors in the files; None, and ``reason``: they do not say."""

    bytes: int | None
    reason: str = ""


def shipped(spec: ModelSpec, place: Path | None) -> Shipped | None:
    """What ships of the model at ``place``; None: nothing of it is in files."""
    made_on_loading = spec.simulate is not None or spec.quantization is not None
    if place is None or not place.exists() or made_on_loading:
        return None
    found = _gguf(gguf_tensors(place, _KEY)) if place.suffix == ".gguf" else _directory(place)
    if found.bytes is None or spec.adapter is None:
        return found
    adapter = _adapter(Path(spec.adapter))
    if adapter is None:
        return Shipped(None, "the size of the adapter's files is not known")
    return Shipped(found.bytes + adapter)


def _gguf(tensors: Sequence[GgufTensor]) -> Shipped:
    unknown = sorted({t.type_name for t in tensors if t.bytes is None})
    if unknown:
        return Shipped(None, f"the GGUF file holds tensors of {', '.join(unknown)}")
    return Shipped(sum(t.bytes or 0 for t in tensors))


def _directory(place: Path) -> Shipped:
    if files := weight_files(place):
        return Shipped(sum(map(_safetensors, files)))
    if pickled := sorted(place.glob("pytorch_model*.bin")):
        try:
            return Shipped(sum(_pickled(pickled)))
        except (OSError, RuntimeError, ValueError, AttributeError, UnpicklingError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return Shipped(None, f"{pickled[0].name} cannot be read without its code ({first})")
    return Shipped(None, f"{place} holds neither safetensors nor pytorch_model.bin")


def _safetensors(file: Path) -> int:
    return sum(
        tensor["data_offsets"][1] - tensor["data_offsets"][0]
        for name, tensor in safetensors_header(file, _KEY).items()
        if name != "__metadata__"
    )


def _pickled(files: Sequence[Path]) -> Iterator[int]:
    """Bytes of each file's tensors; those that share storage once. Only what may be loaded is."""
    import torch

    for file in files:
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for t in held.values()
            if isinstance(t, torch.Tensor)
        }
        yield sum(storages.values())


def _adapter(place: Path) -> int | None:
    files = sorted(place.glob("adapter_model*.safetensors"))
    return sum(map(_safetensors, files)) if files else None
