"""What a model computes in: `dtype: auto` by what the device multiplies fast.

Without matrix instructions for 16 bits a CPU converts every number on the way in and out. On one
with AVX-512 and neither AVX512-BF16 nor AMX, SmolLM2 takes 2,626 µs a token in float32, 9,800 in
bfloat16 and 24,500 in float16 (one thread, backbone and head).

``auto``, for dense weights:

    files of 16 bits   their own dtype; float32 on a CPU without instructions for it
    a GGUF file        bfloat16 where the device has instructions for it, otherwise float32
"""

from __future__ import annotations

import functools
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from evalharness.engines.locate import read_json
from evalharness.spec.model import DType, ModelSpec

if TYPE_CHECKING:
    import torch

# Flags of /proc/cpuinfo, of x86 and of Arm, of which one is enough.
_INSTRUCTIONS = {
    "bfloat16": frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"}),
    "float16": frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
}
_SLOWER = {"bfloat16": 3.7, "float16": 9.3}  # times float32 without them, measured: see above


def computing_dtype(spec: ModelSpec, place: Path, device: torch.device) -> DType:
    """What `spec` is to be loaded in on ``device``, where its files lie at ``place``.

    Anything but ``auto`` is what it is. ``auto`` stays where the files or a quantiser decide: what
    is quantised keeps its own kernels.
    """
    asked = spec.model.dtype
    if asked != "auto" or spec.quantization is not None or spec.model.engine != "transformers":
        return asked
    if place.suffix == ".gguf":
        return "bfloat16" if _multiplies(device, "bfloat16") else "float32"
    if _config(place).get("quantization_config") or device.type != "cpu":
        return asked
    stored = stored_dtype(place)
    return "float32" if stored in _SLOWER and not _multiplies(device, stored) else asked


def stored_dtype(place: Path) -> DType:
    """The dtype that ``config.json`` gives the weights at ``place``; auto: it does not say."""
    config = _config(place)
    inner = config.get("text_config")
    for found in (config, inner if isinstance(inner, dict) else {}):
        for key in ("dtype", "torch_dtype"):
            match str(found.get(key)).removeprefix("torch."):
                case "float32" | "bfloat16" | "float16" as known:
                    return known
    return "auto"


def remark(spec: ModelSpec, place: Path, device: torch.device) -> str | None:
    """What a reader should know of the dtype that `computing_dtype` chose, or was given."""
    if device.type != "cpu" or spec.model.engine != "transformers":
        return None
    asked, taken = spec.model.dtype, computing_dtype(spec, place, device)
    if asked == "auto":
        stored = "bfloat16" if place.suffix == ".gguf" else stored_dtype(place)
        if taken == stored or taken == "auto":
            return None
        return (
            f"dtype: auto computes in {taken}: this CPU has no matrix instructions for {stored}, "
            f"which would take {_SLOWER[stored]:g} times as long"
        )
    if asked in _SLOWER and not spec.quantization and not _multiplies(device, asked):
        return (
            f"dtype: {asked} was asked for, and this CPU has no matrix instructions for it: it "
            f"takes {_SLOWER[asked]:g} times as long as float32, which dtype: auto chooses here"
        )
    return None


def _multiplies(device: torch.device, dtype: str) -> bool:
    """Whether ``device`` has matrix instructions for ``dtype``."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(_INSTRUCTIONS[dtype] & cpu_flags())


@functools.cache
def cpu_flags() -> frozenset[str]:
    """What the processor says it can do; nothing, where the system does not say."""
    if platform.system() != "Linux":
        return frozenset()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    return frozenset(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.M)).split())


def _config(place: Path) -> dict[str, object]:
    file = place / "config.json"
    return read_json(file, "model.path") if file.is_file() else {}
