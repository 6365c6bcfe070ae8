"""The transformers engine: a hub snapshot, a directory or a GGUF file as a PreTrainedModel.

Refused rather than warned about: weights that the files do not hold (transformers would fill them
at random), pickled weights without ``allow_pickle``, code that the model ships without
``trust_remote_code``. A hub id is fetched first and loaded from its snapshot directory, so that a
folder of the same name in the working directory is never mistaken for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from evalharness.compat import gguf
from evalharness.compat.quantizers import are_packed_zero_points
from evalharness.compat.transformers import Loading, is_buffer_of_old, load_causal_model
from evalharness.engines.adapter import add_adapter
from evalharness.engines.base import Parts, Say
from evalharness.engines.computing import computing_dtype
from evalharness.engines.device_memory import require_memory
from evalharness.engines.hub import Resolved, snapshot
from evalharness.engines.load_errors import explain
from evalharness.engines.locate import check_directory, resolve_tokenizer
from evalharness.engines.quantization_config import quantization_config
from evalharness.engines.shared_weights import note_untied, replaced_head
from evalharness.errors import EvalHarnessError, InputError, plural
from evalharness.spec.model import ModelSpec

NAME = "transformers"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(spec: ModelSpec, found: Resolved, device: torch.device, progress: Say) -> Parts:
    """Load the model and the tokenizer of ``spec``; see `evalharness.engines.loading.load`."""
    messages: list[str] = []
    anomalies: list[str] = []
    place = snapshot(found, spec.model)
    if found.kind == "hub":
        check_directory(place, "model.path", allow_pickle=spec.model.allow_pickle)
    dtype = computing_dtype(spec, place, device)
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": dtype})})
    with _gguf_read_once(place):
        try:
            require_memory(spec, place, device)
            if spec.quantization is None:
                model = _plain(spec, place, device, messages)
            else:
                model = _quantized(spec, place, device, progress, messages)
            if replaced := replaced_head(model, place):
                anomalies.append(f"{spec.name}: {replaced}")
            else:
                note_untied(model)  # or what is done to it next may tie the head again
            if spec.adapter is not None:
                progress(f"adding the adapter of {spec.name}")
                model = add_adapter(model, spec, found, messages)
        except EvalHarnessError:
            raise
        except Exception as error:
            raise explain(error, spec, place) from error
        tokenizer = load_tokenizer(spec, found)
    return Parts(model, tokenizer, place, tuple(messages), tuple(anomalies))


def load_tokenizer(spec: ModelSpec, found: Resolved) -> Tokenizer:
    """Load the tokenizer of ``spec``: ``model.tokenizer``, or the one with the model."""
    source = spec.model
    place = snapshot(resolve_tokenizer(source, found), source, weights=False)
    key = "model.tokenizer" if source.tokenizer else "model.path"
    try:
        if place.suffix == ".gguf":
            with _gguf_read_once(place):
                options = {"gguf_file": place.name}
                tokenizer = AutoTokenizer.from_pretrained(
                    place.parent, local_files_only=True, **options
                )
        else:
            tokenizer = AutoTokenizer.from_pretrained(
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
    made: Tokenizer = tokenizer
    return made


@contextmanager
def _gguf_read_once(place: Path) -> Iterator[None]:
    """Within the block, a GGUF file at ``place`` is parsed once; other files need nothing."""
    if place.suffix != ".gguf":
        yield
        return
    if not gguf.is_installed():
        raise InputError(
            "a GGUF file needs the gguf library",
            key="model.path",
            remedy="Run: pip install 'evalharness[gguf]'",
        )
    with gguf.read_once():
        yield


def _plain(
    spec: ModelSpec,
    place: Path,
    device: torch.device,
    messages: list[str],
    quantization: Any = None,
) -> PreTrainedModel:
    source = spec.model
    options: dict[str, Any] = {
        "dtype": DTYPES.get(source.dtype, "auto"),
        "device_map": {"": device},
    }
    if source.attn is not None:
        options["attn_implementation"] = source.attn
    if place.suffix != ".gguf":
        options["use_safetensors"] = None if source.allow_pickle else True
        options["trust_remote_code"] = source.trust_remote_code
    if quantization is not None:
        options["quantization_config"] = quantization
    return _checked(load_causal_model(place, **options), spec, place, messages)


def _quantized(
    spec: ModelSpec, place: Path, device: torch.device, progress: Say, messages: list[str]
) -> PreTrainedModel:
    """Load with a quantiser of transformers, which refuses a GGUF file: that is unpacked first."""
    quantization = quantization_config(spec)
    if place.suffix != ".gguf":
        return _plain(spec, place, device, messages, quantization)
    progress(f"unpacking {place.name}")
    dense = _plain(spec, place, torch.device("cpu"), messages)
    with TemporaryDirectory(prefix="evalharness-") as directory:
        dense.save_pretrained(directory)
        del dense
        return _plain(spec, Path(directory), device, messages, quantization)


def _checked(
    loading: Loading, spec: ModelSpec, place: Path, messages: list[str]
) -> PreTrainedModel:
    """Refuse a model that is not all in the files."""
    model: PreTrainedModel = loading.model
    if loading.missing:
        raise InputError(
            f"{place} does not hold {len(loading.missing)} of the weights of "
            f"{type(model).__name__}: {_some(loading.missing)}; they would be random",
            key="model.path",
            remedy="Give complete weights, or the architecture that config.json should name.",
        )
    if are_packed_zero_points([name for name, _, _ in loading.mismatched]):
        raise InputError(
            f"{place} holds packed zero points (asymmetric compressed-tensors), which transformers "
            f"{version('transformers')} does not unpack",
            key="model.path",
            remedy="Give a symmetric checkpoint, or dense weights that it was decompressed to.",
        )
    if loading.mismatched:
        shapes = [f"{name} {held} for {needed}" for name, held, needed in loading.mismatched]
        raise InputError(
            f"{place} holds weights of other shapes than config.json says: {_some(shapes)}",
            key="model.path",
            remedy="Give the configuration that belongs to these weights.",
        )
    if loading.errors:
        raise InputError(f"{place}: {loading.errors[0]}", key="model.path")
    allowed, unused = spec.model.allow_unused, []
    for name in loading.unexpected:
        if any(fnmatchcase(name, pattern) for pattern in allowed):
            unused.append(name)
        elif not is_buffer_of_old(name):
            wrong = [n for n in loading.unexpected if not is_buffer_of_old(n)]
            raise InputError(
                f"{place} holds {plural(len(wrong), 'tensor')} that {type(model).__name__} has no "
                f"place for: {_some(wrong)}; without them another model would be measured",
                key="model.path",
                remedy="Give files in a format that is supported, or name those that the model "
                "does not need in model.allow_unused, a list of globs.",
            )
    if unused:
        messages.append(f"{spec.name}: not loaded, as model.allow_unused says: {_some(unused)}")
    return model


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
