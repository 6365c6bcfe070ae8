"""What a model's own JSON files would have run, beside what the model file asks for.

An attention implementation may name a repository of kernels on the hub, which transformers fetches
and runs; an adapter may name a module that PEFT imports. Neither needs `trust_remote_code`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evalharness.errors import InputError
from evalharness.spec import permissions

_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation")


def refuse_code(config: dict[str, Any], path: Path, key: str) -> None:
    """Raise `InputError` where the JSON of ``path`` names code and the user has not allowed it."""
    if permissions.code_allowed():
        return
    for name, value in _pairs(config):
        kernels = name in _KERNELS and any("/" in text for text in _texts(value))
        if kernels or (name == "megatron_config" and value):
            what = "kernels of the hub" if kernels else "a module to import"
            raise InputError(
                f"{path} names {what} under {name!r}, whose code would be run",
                key=key,
                remedy=permissions.REMEDY,
            )


def _pairs(data: Any, deep: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict) and deep < 8:
        for name, value in data.items():
            yield name, value
            yield from _pairs(value, deep + 1)


def _texts(value: Any) -> list[str]:
    found = list(value.values()) if isinstance(value, dict) else [value]
    return [text for text in found if isinstance(text, str)]
