"""What engines that run in a process of their own have in common."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalharness.engines.base import Parts, Say
from evalharness.engines.hub import Resolved
from evalharness.errors import InputError, nearest, short
from evalharness.run.marks import sha256
from evalharness.spec.model import ModelSpec
from evalharness.spec.result import CompressionManifest, TensorGroup

if TYPE_CHECKING:
    import torch

CHUNK = 128  # tokens a call; part of what the candidate is
_LEAST_FLOAT = 16  # bits of the narrowest weights that are multiplied as they are
WORKERS = Path(__file__).with_name("workers")


def check_spec(spec: ModelSpec, engine: str, options: Mapping[str, type]) -> None:
    """Raise `InputError` where ``spec`` asks ``engine`` for what only transformers can do.

    ``options`` : keys of ``model.options`` and the types that they take.
    """
    for key in ("simulate", "quantization", "adapter"):
        if getattr(spec, key) is not None:
            raise InputError(
                f"{engine} runs a model as its file is, without {key}",
                key=key,
                remedy="Leave it out, or use engine: transformers.",
            )
    if spec.model.base_url is not None and engine != "openai":
        raise InputError(
            f"is for servers, and {engine} runs here",
            key="model.base_url",
            remedy="Leave it out, or use engine: openai.",
        )
    python = spec.model.python
    if python is not None and shutil.which(python) is None:
        raise InputError(
            f"{python} cannot be run",
            key="model.python",
            remedy="Give the path of the Python that the engine is installed in.",
        )
    for key, value in spec.model.options.items():
        if key not in options:
            known = f"Known: {', '.join(options)}." if options else "It has none."
            hint = nearest(key, options)
            raise InputError(
                f"{engine} has no such option",
                key=f"model.options.{key}",
                remedy=f"{hint[:1].upper()}{hint[1:]} {known}".strip(),
            )
        wanted = options[key]
        if type(value) is not wanted:
            raise InputError(
                f"must be of type {wanted.__name__} (got {short(value)})",
                key=f"model.options.{key}",
            )


def require(spec: ModelSpec, *ways: tuple[str, ...], install: str) -> None:
    """Raise `InputError` where the packages of none of ``ways`` are in the Python to be used."""
    python = spec.model.python
    if python is not None:
        if not os.access(python, os.X_OK) or Path(python).is_dir():
            raise InputError(
                f"{python} is no program that can be run",
                key="model.python",
                remedy="Give the path of the Python that the engine is installed in.",
            )
        return  # what it has, only running it shows
    if not any(all(find_spec(package) for package in way) for way in ways):
        raise InputError(
            f"{spec.model.engine} is not installed in this Python",
            key="model.engine",
            remedy=f"Run: {install}. Or name a Python that has it with model.python.",
        )


def load_native(
    spec: ModelSpec,
    found: Resolved,
    device: torch.device,
    say: Say,
    *,
    engine: str,
    options: dict[str, Any],
    groups: list[TensorGroup],
    claimed: dict[str, Any],
    disagreements: list[str],
) -> Parts:
    """Start the engine's process on the model; see `evalharness.engines.loading.load`.

    Parameters
    ----------
    options : for the driver, beside ``chunk`` and ``threads``.
    groups : what the file stores, by its own table.
    claimed, disagreements : of the compression manifest.

    """
    import torch

    from evalharness.engines.child import Child
    from evalharness.engines.fingerprint import tokenizer_fingerprint
    from evalharness.engines.native_model import NativeConfig, NativeModel
    from evalharness.engines.transformers import load_tokenizer

    assert found.path is not None
    tokenizer = load_tokenizer(spec, found)
    chunk = spec.model.chunk or CHUNK
    child = Child(
        spec.name,
        WORKERS / f"{engine.replace('.', '_')}_worker.py",
        {"chunk": chunk, "threads": torch.get_num_threads(), **options},
        python=spec.model.python,
        say=say,
    )
    about = {"name": engine, **{k: v for k, v in child.info.items() if k != "vocabulary"}}
    config = NativeConfig(
        vocab_size=child.vocabulary,
        max_position_embeddings=int(child.info["trained_context"]),
        engine=about,
    )
    model = NativeModel(config, child, device)
    stop = tokenizer.eos_token_id
    model.stops = frozenset(() if stop is None else (int(stop),))
    parameters = sum(g.parameters for g in groups)
    unknown = next((g.storage for g in groups if not g.bits_per_weight), None)
    bits = None if unknown or not groups else sum(g.bits_per_weight * g.parameters for g in groups)
    per_weight = None if bits is None or not parameters else bits / parameters
    size = None if bits is None else round(bits / 8)
    low = any(g.bits_per_weight < _LEAST_FLOAT for g in groups)
    say(f"hashing {found.path.name}")
    manifest = CompressionManifest(
        name=spec.name,
        source=spec.model.path,
        architecture=f"{engine} ({child.info['package']})",
        dtype="of the engine's kernels",
        parameters=parameters,
        bits_per_weight=per_weight,
        weight_bytes=size,
        ships="files",
        counted_bits_per_weight=per_weight,
        counted_bytes=size,
        resident_bytes=size,
        not_measured=None if bits is not None else _why_not(unknown),
        format="; ".join(g.storage for g in groups[:3]),
        activations="as the engine's kernels round them",
        kv_cache=str(child.info.get("kv", "as the engine's settings say")),
        kernel="low-bit" if low else "dense",
        groups=groups,
        claimed={**claimed, "engine": described(about)},
        disagreements=disagreements,
        fingerprint=files_fingerprint(found.path),
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        configuration_fingerprint=hashlib.sha256(repr(sorted(about.items())).encode()).hexdigest(),
    )
    return Parts(model, tokenizer, found.path, manifest=manifest)


def _why_not(unknown: str | None) -> str:
    if unknown is not None:
        return f"the size of a tensor of type {unknown} is not known"
    return "the file's own table of tensors could not be read (of ONNX it takes the onnx library)"


def described(about: Mapping[str, Any]) -> str:
    """An engine in a line: its name, its package and what decides its numbers."""
    shown = {k: v for k, v in about.items() if k not in ("name", "package", "trained_context")}
    settings = ", ".join(f"{k} {v}" for k, v in shown.items())
    return f"{about['name']}: {about['package']}; {settings}"


def files_fingerprint(place: Path) -> str:
    """SHA-256 of a file, or of the files of a folder by name."""
    digest = hashlib.sha256()
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    for file in files:
        digest.update(os.fsencode(file.relative_to(place.parent)) if place.is_dir() else b"")
        digest.update(bytes.fromhex(sha256(file)))
    return digest.hexdigest()
