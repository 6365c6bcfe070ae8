"""The ONNX Runtime GenAI engine: a folder that its model builder wrote, in its own process.

``model.path`` is the folder with ``genai_config.json``; its tokenizer is read from it unless
``model.tokenizer`` names one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalharness.engines.base import Parts, Say
from evalharness.engines.hub import Resolved
from evalharness.engines.locate import read_json
from evalharness.engines.native import check_spec, load_native, require
from evalharness.errors import InputError, short
from evalharness.spec.model import ModelSpec

if TYPE_CHECKING:
    import torch

NAME = "onnx"
CONFIG = "genai_config.json"


def locate(spec: ModelSpec) -> Resolved:
    """Find the folder of ``spec``, and what it must hold."""
    check_spec(spec, NAME, {})
    require(spec, ("onnxruntime_genai",), install="pip install 'evalharness[onnx]'")
    folder = Path(spec.model.path)
    config = folder / CONFIG
    if not config.is_file():
        raise InputError(
            f"{folder} has no {CONFIG}",
            key="model.path",
            remedy="Give the folder that `python -m onnxruntime_genai.models.builder` wrote.",
        )
    model = read_json(config, "model.path").get("model")
    decoder = model.get("decoder") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(decoder, dict):
        raise InputError(f"{config} names no decoder", key="model.path")
    for key in ("context_length", "vocab_size"):
        if type(model.get(key)) is not int or model[key] < 1:
            raise InputError(
                f"{config}: model.{key} must be a positive number (got {short(model.get(key))})",
                key="model.path",
            )
    file = str(decoder.get("filename"))
    if Path(file).name != file or not (folder / file).is_file():
        raise InputError(
            f"{config} names {short(file)}, which is not there",
            key="model.path",
            remedy="Build or copy the model again.",
        )
    return Resolved("engine", path=folder, name=str(folder))


def load(spec: ModelSpec, found: Resolved, device: torch.device, progress: Say) -> Parts:
    """Start ONNX Runtime GenAI on the folder; see `evalharness.engines.loading.load`."""
    from evalharness.engines.file_groups import onnx_groups

    assert found.path is not None
    decoder = read_json(found.path / CONFIG, "model.path")["model"]["decoder"]
    groups = onnx_groups(found.path / str(decoder["filename"]))
    claimed: dict[str, Any] = spec.manifest.model_dump(exclude_none=True)
    disagreements = []
    bits = spec.manifest.bits
    if bits is not None and groups:
        lowest = min(g.bits_per_weight for g in groups)
        if not any(bits - 0.05 <= g.bits_per_weight <= bits + 1.05 for g in groups):
            disagreements.append(f"claims {bits:g} bits, but the least is {lowest:.2f} a weight")
    return load_native(
        spec,
        found,
        device,
        progress,
        engine=NAME,
        options={"path": str(found.path.resolve())},
        groups=groups,
        claimed=claimed,
        disagreements=disagreements,
    )
