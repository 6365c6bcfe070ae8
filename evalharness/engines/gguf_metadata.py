"""What a GGUF file says of how it was made: quantised by whom, on which calibration data."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from evalharness.engines.file_headers import INTEGERS, STRING, Cursor
from evalharness.errors import InputError

# llama.cpp's keys, and what they are called here.
_KEYS = {
    "general.quantized_by": "quantised by",
    "quantize.imatrix.file": "importance matrix",
    "quantize.imatrix.dataset": "calibration text",
    "quantize.imatrix.chunks_count": "calibration chunks",
}
_MOST = 200  # characters


def gguf_metadata(path: Path, key: str) -> dict[str, Any]:
    """The keys of `_KEYS` that the GGUF file at ``path``, which is known to be whole, holds."""
    found: dict[str, Any] = {}
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            cursor = Cursor(data)
            for _ in range(struct.unpack_from("<Q", data, 16)[0]):
                name, kind = cursor.text(), cursor.read("I")
                if name not in _KEYS:
                    cursor.pass_over(kind, 0)
                elif kind == STRING:
                    found[_KEYS[name]] = cursor.text()[:_MOST]
                elif kind in INTEGERS:
                    found[_KEYS[name]] = int(cursor.read(INTEGERS[kind]))
                else:
                    cursor.pass_over(kind, 0)
    except (struct.error, UnicodeDecodeError, ValueError):
        raise InputError(f"{path} is cut short or damaged", key=key) from None
    return found
