"""The llama.cpp engine: a GGUF file in the kernels that ship it, in a process of its own.

``model.path`` is a GGUF file; its tokenizer is read from it unless ``model.tokenizer`` names one.
``model.options``: ``kv``, the type of keys and values (f16), ``flash_attention`` (false) and
``n_gpu_layers`` (0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalharness.engines.base import Parts, Say
from evalharness.engines.hub import Resolved
from evalharness.engines.locate import resolve_spec
from evalharness.engines.native import check_spec, load_native, require
from evalharness.errors import InputError, nearest
from evalharness.spec.model import ModelSpec

if TYPE_CHECKING:
    import torch

NAME = "llama.cpp"
OPTIONS = {"kv": str, "flash_attention": bool, "n_gpu_layers": int}
KV = ("f16", "f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")


def locate(spec: ModelSpec) -> Resolved:
    """Find the GGUF file of ``spec``."""
    check_spec(spec, NAME, OPTIONS)
    packages = ("llama_cpp",), ("xllamacpp", "llama_cpp_py_sync")
    require(spec, *packages, install="pip install 'evalharness[llama-cpp]'")
    kv = spec.model.options.get("kv", "f16")
    if kv not in KV:
        hint = nearest(kv, KV)
        raise InputError(
            f"llama.cpp has no type {kv!r} of keys and values",
            key="model.options.kv",
            remedy=f"{hint[:1].upper()}{hint[1:]} Known: {', '.join(KV)}.".strip(),
        )
    if kv not in KV[:3] and not spec.model.options.get("flash_attention"):
        raise InputError(
            f"llama.cpp quantises values ({kv}) only with flash attention",
            key="model.options.kv",
            remedy="Set flash_attention: true beside it.",
        )
    found = resolve_spec(spec)
    if found.kind != "gguf":
        raise InputError(
            f"llama.cpp runs GGUF files (got {found})",
            key="model.path",
            remedy="Give a .gguf file, or use engine: transformers.",
        )
    return found


def load(spec: ModelSpec, found: Resolved, device: torch.device, progress: Say) -> Parts:
    """Start llama.cpp on the file; see `evalharness.engines.loading.load`."""
    from evalharness.engines.claims import disagreements, file_types
    from evalharness.engines.file_groups import gguf_groups
    from evalharness.engines.file_headers import gguf_tensors

    assert found.path is not None
    table = gguf_tensors(found.path, "model.path")
    return load_native(
        spec,
        found,
        device,
        progress,
        engine=NAME,
        options={"path": str(found.path), **spec.model.options},
        groups=gguf_groups(table),
        claimed=spec.manifest.model_dump(exclude_none=True) | {"file": file_types(table)},
        disagreements=disagreements(spec.manifest, [], table),
    )
