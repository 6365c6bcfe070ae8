"""Does the model fit? Asked before loading: Linux kills a process that finds out by trying."""

from __future__ import annotations

import ctypes
import functools
import json
import math
import platform
from collections.abc import Callable
from pathlib import Path

import torch

from evalharness.engines.file_headers import gguf_tensors, safetensors_header, weight_files
from evalharness.errors import RunError
from evalharness.spec.model import ModelSpec

KEPT = 512 << 20  # bytes of freed memory that stay with the process
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_ONE_BYTE = ("I8", "U8", "F8_E4M3", "F8_E5M2")
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def require_memory(spec: ModelSpec, place: Path, device: torch.device) -> None:
    """Raise `RunError` when the dense weights at ``place`` exceed the memory free on ``device``.

    A quantised load, whose size its library decides, and pickled weights are not judged.
    """
    free = free_bytes(device)
    need = None if spec.quantization else weight_bytes(place, spec.model.dtype)
    if free is not None and need is not None and need > free:
        raise RunError(
            f"{spec.name}: its weights need {gib(need)} and {gib(free)} is free on {device}. "
            "Use another device, a smaller dtype, or a machine with more memory"
        )


def weight_bytes(place: Path, dtype: str) -> int | None:
    """Bytes of the weights at ``place`` once they have run as ``dtype``; None: it cannot be read.

    Codes of compressed-tensors are counted as the dense weights that the first forward pass makes
    of them.
    """
    if place.suffix == ".gguf":
        width = _BYTES.get(dtype, 4)
        return sum(width * math.prod(t.shape) for t in gguf_tensors(place, "model.path"))
    files, total = weight_files(place), 0
    if not files:
        return None
    dense = _decompressed(place, dtype)
    for file in files:
        header = safetensors_header(file, "model.path")
        for name, tensor in header.items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                if (weights := dense(name, tensor["dtype"], end - start)) is not None:
                    total += weights
                    continue
                cast = dtype in _BYTES and tensor["dtype"] in ("F32", "F16", "BF16")
                total += math.prod(tensor["shape"]) * _BYTES[dtype] if cast else end - start
    return total


def _decompressed(place: Path, dtype: str) -> Callable[[str, str, int], int | None]:
    """Bytes of a tensor, by name, dtype and bytes in the file, once decompressed; None: it is not.

    Where a checkpoint has schemes of several widths the narrowest counts, which is the most memory.
    """
    file = place / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = config.get("quantization_config")
    if not isinstance(found, dict) or found.get("quant_method") != "compressed-tensors":
        return lambda name, kind, size: None
    stated = str(config.get("dtype") or config.get("torch_dtype"))
    width = _BYTES.get(dtype) or _BYTES.get(stated, 4)
    groups = found.get("config_groups")
    schemes = [
        g["weights"].get("num_bits")
        for g in (groups.values() if isinstance(groups, dict) else ())
        if isinstance(g, dict) and isinstance(g.get("weights"), dict)
    ]
    bits = min((b for b in schemes if type(b) is int and b > 0), default=8)

    def dense(name: str, kind: str, size: int) -> int | None:
        if name.endswith(".weight_packed"):
            return width * (8 * size // bits)
        return width * size if name.endswith(".weight") and kind in _ONE_BYTE else None

    return dense


def free_bytes(device: torch.device) -> int | None:
    """Bytes free on ``device``; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*found, *_left_of_container()], default=None)


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc keep large blocks that are freed, for the next tensor of that size.

    It gives them back to the system, which has to clear every page of the next one: 48 pages a
    token and 70 to 90 µs for two rows of 49 k bfloat16 logits. Elsewhere than on glibc, nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, KEPT)
        libc.mallopt(_TRIM_THRESHOLD, KEPT)


def _left_of_container() -> list[int]:
    """What a container's own limit leaves of memory (cgroup 2); page cache counts as free."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
        lines = (root / "memory.stat").read_text().splitlines()
        cached = sum(int(v) for k, _, v in (x.partition(" ") for x in lines) if k == "file")
        return [int(limit) - used + cached]
    except (OSError, ValueError):  # no such file, or the word "max"
        return []


def gib(count: int | None) -> str:
    """Bytes in words: ``1.25 GiB``."""
    return "of unknown size" if count is None else f"{count / 2**30:.2f} GiB"
