"""The transformers engine: a hub snapshot, a directory or a GGUF file as a PreTrainedModel.

Refused rather than warned about: weights that the files do not hold (transformers would fill them
at random), pickled weights without ``allow_pickle``, code that the model ships without
``trust_remote_code``. A hub id is fetched first and loaded from its snapshot directory, so that a
folder of the same name in the working directory is never mistaken for it.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from evalharness.engines import gguf, quantizers
from evalharness.engines.adapter import add_adapter
from evalharness.engines.base import Parts, Say
from evalharness.engines.device_memory import require_memory
from evalharness.engines.hub import Resolved, snapshot
from evalharness.engines.load_errors import explain
from evalharness.engines.locate import check_directory, resolve_tokenizer
from evalharness.errors import EvalHarnessError, InputError
from evalharness.spec.model import ModelSpec

NAME = "transformers"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(spec: ModelSpec, found: Resolved, device: torch.device, progress: Say) -> Parts:
    """Load the model and the tokenizer of ``spec``; see `evalharness.engines.load.load`."""
    messages: list[str] = []
    place = snapshot(found, spec.model)
    if found.kind == "hub":
        check_directory(place, "model.path", allow_pickle=spec.model.allow_pickle)
    with gguf.read_once() if found.kind == "gguf" else nullcontext():
        try:
            require_memory(spec, place, device)
            if spec.quantization is None:
                model = _plain(spec, place, device, messages)
            else:
                model = _quantized(spec, place, device, progress, messages)
            if spec.adapter is not None:
                progress(f"adding the adapter of {spec.name}")
                model = add_adapter(model, spec, messages)
        except EvalHarnessError:
            raise
        except Exception as error:
            raise explain(error, spec, place) from error
        tokenizer = load_tokenizer(spec, found)
    return Parts(model, tokenizer, place, tuple(messages))


def load_tokenizer(spec: ModelSpec, found: Resolved) -> Tokenizer:
    """Load the tokenizer of ``spec``: ``model.tokenizer``, or the one with the model."""
    source = spec.model
    place = snapshot(resolve_tokenizer(source, found), source, weights=False)
    key = "model.tokenizer" if source.tokenizer else "model.path"
    try:
        if place.suffix == ".gguf":
            return gguf.load_tokenizer(place)
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(
            place, trust_remote_code=source.trust_remote_code, local_files_only=True
        )
    except EvalHarnessError:
        raise
    except Exception as error:
        raise InputError(
            f"the tokenizer in {place} cannot be loaded ({_first(error)})",
            key=key,
            remedy="Name a directory that holds one with model.tokenizer.",
        ) from error
    return tokenizer


def _plain(
    spec: ModelSpec,
    place: Path,
    device: torch.device,
    messages: list[str],
    quantization_config: Any = None,
) -> PreTrainedModel:
    source = spec.model
    options: dict[str, Any] = {
        "dtype": DTYPES.get(source.dtype, "auto"),
        "device_map": {"": device},
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # reported by `_checked`, which names them
    }
    if source.attn is not None:
        options["attn_implementation"] = source.attn
    if place.suffix == ".gguf":
        return _checked(*gguf.load_model(place, options), spec, place, messages)
    if quantization_config is not None:
        options["quantization_config"] = quantization_config
    loader: Any = AutoModelForCausalLM
    model, info = loader.from_pretrained(
        place,
        use_safetensors=None if source.allow_pickle else True,
        trust_remote_code=source.trust_remote_code,
        local_files_only=True,
        **options,
    )
    return _checked(model, info, spec, place, messages)


def _quantized(
    spec: ModelSpec, place: Path, device: torch.device, progress: Say, messages: list[str]
) -> PreTrainedModel:
    """Load with a quantiser of transformers; a GGUF file is unpacked into a directory first."""
    config = quantizers.config(spec)
    if place.suffix != ".gguf":
        return _plain(spec, place, device, messages, config)
    progress(f"unpacking {place.name}")
    with quantizers.unpacked(_plain(spec, place, torch.device("cpu"), messages)) as directory:
        return _plain(spec, directory, device, messages, config)


def _checked(
    model: PreTrainedModel,
    info: dict[str, Any],
    spec: ModelSpec,
    place: Path,
    messages: list[str],
) -> PreTrainedModel:
    """Refuse a model that is not all in the files."""
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(
            f"{place} does not hold {len(missing)} of the weights of {type(model).__name__}: "
            f"{_some(missing)}; they would be random",
            key="model.path",
            remedy="Give complete weights, or the architecture that config.json should name.",
        )
    shapes = [
        f"{name} {list(held)} for {list(needed)}"
        for name, held, needed in sorted(info["mismatched_keys"])
    ]
    if shapes:
        raise InputError(
            f"{place} holds weights of other shapes than config.json says: {_some(shapes)}",
            key="model.path",
            remedy="Give the configuration that belongs to these weights.",
        )
    if info.get("error_msgs"):
        raise InputError(f"{place}: {info['error_msgs'][0]}", key="model.path")
    unused = sorted(info["unexpected_keys"])
    if unused:
        messages.append(
            f"{spec.name}: the files hold tensors that {type(model).__name__} has no place for, "
            f"not loaded: {_some(unused)}"
        )
    return model


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
