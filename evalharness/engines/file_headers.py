"""The first bytes of weight files: enough to refuse a broken one before loading it.

safetensors: 8 bytes little-endian header length, a JSON header, then the data; the header states
where the last tensor ends, so that a truncated download shows at once.
GGUF: the magic ``GGUF``, then version, tensor count and key count.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalharness.errors import InputError

_LFS = b"version https://git-lfs"
_AGAIN = "Copy or download it again."
_MOST_HEADER = 100_000_000  # bytes, the limit of the safetensors library


def safetensors_header(path: Path, key: str) -> dict[str, Any]:
    """Return the JSON header of ``path``; raise `InputError` when the file is not complete."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS))
            if start == _LFS:
                raise _pointer(path, key)
            size = path.stat().st_size
            length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else -1
            if not 2 <= length <= min(size - 8, _MOST_HEADER):
                raise InputError(f"{path} is not a safetensors file", key=key, remedy=_AGAIN)
            file.seek(8)
            header: dict[str, Any] = json.loads(file.read(length))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", key=key) from None
    except ValueError:
        raise InputError(f"{path} is not a safetensors file", key=key, remedy=_AGAIN) from None
    try:
        tensors = [v for k, v in header.items() if k != "__metadata__"]
        end = 8 + length + max((int(v["data_offsets"][1]) for v in tensors), default=0)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise InputError(f"{path} is not a safetensors file", key=key, remedy=_AGAIN) from None
    if size < end:
        raise InputError(f"{path} is cut short: {size:,} bytes of {end:,}", key=key, remedy=_AGAIN)
    return header


def weight_files(place: Path) -> list[Path]:
    """The safetensors files that a load of the directory ``place`` reads; none of another form."""
    whole, index = place / "model.safetensors", place / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return []
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [place / name for name in sorted(set(names)) if name.endswith(".safetensors")]


def check_safetensors(path: Path, key: str) -> None:
    """Raise `InputError` unless ``path`` is a complete safetensors file."""
    safetensors_header(path, key)


# ggml type id → name, weights in a block, bytes of a block (ggml.c, as in gguf.constants).
GGML_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}


@dataclass(frozen=True)
class GgufTensor:
    """One row of a GGUF file's tensor table; ``type`` is the ggml type id."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int  # bytes from the start of the data

    @property
    def type_name(self) -> str:
        """Name of the type, such as ``Q4_1``."""
        return GGML_TYPES[self.type][0] if self.type in GGML_TYPES else f"type {self.type}"

    @property
    def bytes(self) -> int | None:
        """Bytes in the file, scales included; None for a type that is not in `GGML_TYPES`."""
        if self.type not in GGML_TYPES:
            return None
        _, block, size = GGML_TYPES[self.type]
        return math.prod(self.shape) // block * size


def check_gguf(path: Path, key: str) -> None:
    """Raise `InputError` unless ``path`` starts as a GGUF file and reaches its last tensor."""
    gguf_tensors(path, key)


def gguf_tensors(path: Path, key: str) -> list[GgufTensor]:
    """Read the tensor table of ``path``; raise `InputError` when it is not a whole GGUF file."""
    try:
        with path.open("rb") as file:
            start = file.read(24)
            if start == _LFS[:24]:
                raise _pointer(path, key)
            if start[:4] != b"GGUF" or len(start) < 24:
                raise InputError(
                    f"{path} is not a GGUF file: it must start with b'GGUF' (got {start[:4]!r})",
                    key=key,
                    remedy=_AGAIN,
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _tensor_table(data)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", key=key) from None
    except (struct.error, UnicodeDecodeError, ValueError):
        raise InputError(f"{path} is cut short or damaged", key=key, remedy=_AGAIN) from None


# GGUF value types of fixed size: u8 i8 u16 i16 u32 i32 f32 bool u64 i64 f64; 8 string, 9 array.
_WIDTH = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def _tensor_table(data: mmap.mmap) -> list[GgufTensor]:
    count, keys = struct.unpack_from("<QQ", data, 8)
    at = 24
    for _ in range(keys):
        at += 8 + int(struct.unpack_from("<Q", data, at)[0])
        (kind,) = struct.unpack_from("<I", data, at)
        at = _skip(data, at + 4, kind)
    tensors = []
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", data, at)
        name = data[at + 8 : at + 8 + length].decode()
        (axes,) = struct.unpack_from("<I", data, at + 8 + length)
        at += 12 + length
        shape = struct.unpack_from(f"<{axes}Q", data, at)
        kind, offset = struct.unpack_from("<IQ", data, at + 8 * axes)
        at += 8 * axes + 12
        tensors.append(GgufTensor(name, tuple(reversed(shape)), kind, offset))
    if at + max((t.offset + (t.bytes or 0) for t in tensors), default=0) > len(data):
        raise ValueError("cut short")
    return tensors


def _skip(data: mmap.mmap, at: int, kind: int) -> int:
    """Return where the value of type ``kind`` at ``at`` ends."""
    if kind == 8:
        return at + 8 + int(struct.unpack_from("<Q", data, at)[0])
    if kind != 9:
        if kind not in _WIDTH:
            raise ValueError(f"unknown value type {kind}")
        return at + _WIDTH[kind]
    inner, length = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner in _WIDTH:
        return at + _WIDTH[inner] * int(length)
    for _ in range(length):
        at = _skip(data, at, inner)
    return at


def _pointer(path: Path, key: str) -> InputError:
    return InputError(
        f"{path} is a git-lfs pointer, not the weights",
        key=key,
        remedy="Run `git lfs pull` in its repository.",
    )
