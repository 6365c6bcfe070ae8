"""Does the model fit? Asked before loading: Linux kills a process that finds out by trying."""

from __future__ import annotations

import ctypes
import functools
import math
import platform
from pathlib import Path

import torch

from evalharness.engines.file_headers import gguf_tensors, safetensors_header, weight_files
from evalharness.errors import RunError
from evalharness.spec.model import ModelSpec

KEPT = 512 << 20  # bytes of freed memory that stay with the process
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
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
    """Bytes of the weights at ``place`` once loaded as ``dtype``; None where it cannot be read."""
    if place.suffix == ".gguf":
        width = _BYTES.get(dtype, 4)
        return sum(width * math.prod(t.shape) for t in gguf_tensors(place, "model.path"))
    files, total = weight_files(place), 0
    if not files:
        return None
    for file in files:
        header = safetensors_header(file, "model.path")
        for name, tensor in header.items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                cast = dtype in _BYTES and tensor["dtype"] in ("F32", "F16", "BF16")
                total += math.prod(tensor["shape"]) * _BYTES[dtype] if cast else end - start
    return total


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
