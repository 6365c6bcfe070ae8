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
from typing import Any, TypeGuard

from evalharness.errors import InputError, short

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
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not a safetensors file", key=key, remedy=_AGAIN) from None
    wrong = _wrong_in(header)
    if wrong is not None:
        raise InputError(f"{path} is not a safetensors file ({wrong})", key=key, remedy=_AGAIN)
    tensors = [v for k, v in header.items() if k != "__metadata__"]
    end = 8 + length + max((v["data_offsets"][1] for v in tensors), default=0)
    if size < end:
        raise InputError(f"{path} is cut short: {size:,} bytes of {end:,}", key=key, remedy=_AGAIN)
    return header


# Bits of a number by its dtype, as the safetensors library names them.
_BITS = {"BOOL": 8, "BF16": 16, "C64": 64} | {
    f"{kind}{bits}": bits
    for kind, sizes in (("F", (16, 32, 64)), ("I", (8, 16, 32, 64)), ("U", (8, 16, 32, 64)))
    for bits in sizes
}
_MOST_AXES = 16
_MOST_NUMBER = 1 << 62


def _wrong_in(header: object) -> str | None:
    """What of a safetensors header is not as the format has it; None: nothing."""
    if not isinstance(header, dict):
        return f"its header must be a mapping, got {short(header)}"
    for name, tensor in header.items():
        if name == "__metadata__":
            if not isinstance(tensor, dict | None):
                return f"its metadata must be a mapping, got {short(tensor)}"
            continue
        wrong = _wrong_tensor(tensor)
        if wrong is not None:
            return f"tensor {short(name)}: {wrong}"
    return None


def _wrong_tensor(tensor: object) -> str | None:
    if not isinstance(tensor, dict):
        return f"must be a mapping, got {short(tensor)}"
    dtype, shape, offsets = (tensor.get(k) for k in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str):
        return f"dtype must be text, got {short(dtype)}"
    if not _are_counts(shape) or len(shape) > _MOST_AXES:
        return f"shape must be a list of counts, got {short(shape)}"
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"data_offsets must be two rising counts, got {short(offsets)}"
    held, bits = offsets[1] - offsets[0], _BITS.get(dtype)
    if bits is not None and math.prod(shape) * bits != 8 * held:
        return f"{dtype} of shape {short(shape)} does not take {held} bytes"
    return None


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < _MOST_NUMBER for v in value)


def weight_files(place: Path) -> list[Path]:
    """The safetensors files that a load of the directory ``place`` reads; none of another form."""
    whole, index = place / "model.safetensors", place / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return []
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [place / name for name in sorted(set(names)) if name.endswith(".safetensors")]


def tensor_shapes(place: Path, key: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in the directory or GGUF file ``place``, by name; none: not known."""
    if place.suffix == ".gguf":
        return {t.name: t.shape for t in gguf_tensors(place, key)}
    return {
        name: tuple(tensor["shape"])
        for path in weight_files(place)
        for name, tensor in safetensors_header(path, key).items()
        if name != "__metadata__"
    }


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
STRING, _ARRAY = 8, 9
INTEGERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 10: "Q", 11: "q"}
_MOST_NESTED = 4  # arrays in arrays; files have none


class Cursor:
    """A place in a GGUF file, which no length read from it can move past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 24

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        self.skip(count)
        return self.data[self.at - count : self.at]

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        if count > len(self.data) - self.at:
            raise ValueError("cut short")
        self.at += count

    def read(self, form: str) -> Any:
        """The next number of a format of `struct`."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self) -> str:
        """The next string."""
        return self.take(self.read("Q")).decode()

    def value(self, depth: int = 0) -> int | None:
        """Pass over a value behind its type; return it where it is an integer."""
        kind = self.read("I")
        if kind in INTEGERS:
            return int(self.read(INTEGERS[kind]))
        self.pass_over(kind, depth)
        return None

    def pass_over(self, kind: int, depth: int) -> None:
        """Pass over a value of type ``kind``."""
        if kind in _WIDTH:
            self.skip(_WIDTH[kind])
        elif kind == STRING:
            self.skip(self.read("Q"))
        elif kind == _ARRAY and depth < _MOST_NESTED:
            inner, length = self.read("I"), self.read("Q")
            if inner in _WIDTH:
                self.skip(_WIDTH[inner] * length)
                return
            for _ in range(length):
                self.pass_over(inner, depth + 1)
        else:
            raise ValueError(f"value type {kind}")


def _tensor_table(data: mmap.mmap) -> list[GgufTensor]:
    count, keys = struct.unpack_from("<QQ", data, 8)
    cursor, layers = Cursor(data), 0
    for _ in range(keys):
        name, value = cursor.text(), cursor.value()
        if name.endswith(".block_count") and value is not None:
            layers = max(layers, value)
    tensors = []
    for _ in range(count):
        name, axes = cursor.text(), cursor.read("I")
        if axes > _MOST_AXES:
            raise ValueError("too many axes")
        shape = tuple(cursor.read("Q") for _ in range(axes))
        kind, offset = cursor.read("I"), cursor.read("Q")
        tensors.append(GgufTensor(name, shape[::-1], kind, offset))
    if cursor.at + max((t.offset + (t.bytes or 0) for t in tensors), default=0) > len(data):
        raise ValueError("cut short")
    if layers > len(tensors):
        raise ValueError(f"{layers} layers, {len(tensors)} tensors")
    return tensors


def _pointer(path: Path, key: str) -> InputError:
    return InputError(
        f"{path} is a git-lfs pointer, not the weights",
        key=key,
        remedy="Run `git lfs pull` in its repository.",
    )
