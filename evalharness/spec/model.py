"""``base.yaml`` and ``candidate.yaml``: which model, how it is loaded, what was done to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, field_validator, model_validator

from evalharness.errors import InputError
from evalharness.spec import permissions
from evalharness.spec.base import Spec, parse
from evalharness.spec.simulate import Simulate
from evalharness.spec.yamlfile import KeyPath, YamlFile, load_yaml

DType = Literal["auto", "float32", "bfloat16", "float16"]


class ModelSource(Spec):
    """Where the weights are and how they are run."""

    path: str = Field(
        description="Hub id, directory, .gguf file, or package:NAME/FILE for a file inside an "
        "installed Python package. Relative paths are relative to the YAML file.",
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch of a hub model.")
    tokenizer: str | None = Field(
        None, description="Where the tokenizer is, if not with the model; same forms as path."
    )
    engine: str = Field(
        "transformers",
        validation_alias=AliasChoices("engine", "backend"),
        description="What runs the model: transformers, llama.cpp, or an engine of an installed "
        "package.",
    )
    python: str | None = Field(
        None, description="The Python that has the engine, where it is another than this one."
    )
    chunk: int | None = Field(
        default=None,
        ge=1,
        le=8192,
        description="Tokens that an engine in a process of its own is fed at a time (128).",
    )
    base_url: str | None = Field(
        None, description="Address of the server that the engine `openai` asks, up to /v1."
    )
    options: dict[str, Any] = Field({}, description="Settings of the engine; see its page.")
    dtype: DType = Field(
        "auto",
        description="auto: the files' own, and float32 on a CPU without matrix instructions for "
        "it; of a GGUF file bfloat16 where the device has instructions for it, else float32.",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps …")
    attn: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] | None = None
    trust_remote_code: bool = Field(False, description="Run Python code that the model ships.")
    allow_unused: tuple[str, ...] = Field(
        (), description="Globs of tensors in the files that the model may do without."
    )
    allow_pickle: bool = Field(False, description="Load .bin weights, which can run any code.")


class Claims(Spec):
    """What the author says was compressed; held against what is measured from the weights."""

    tool: str | None = None
    bits: float | None = Field(
        default=None, gt=0, description="Claimed bits of the quantised weights."
    )
    group_size: int | None = Field(default=None, ge=2)
    calibration_data: str | None = Field(
        None,
        description="A .txt or .jsonl file (key text), which `probes: [activations]` holds against "
        "the suite's texts; anything else is a note.",
    )
    sparsity: float | Literal["2:4"] | None = Field(
        default=None,
        description="Claimed share of exact zeros in the linear weights, or the pattern 2:4.",
    )
    kernel: str | None = None
    notes: str | None = None


class ModelSpec(Spec):
    """One side of a pair."""

    version: Literal[1] = 1
    name: str = Field(min_length=1)
    model: ModelSource
    adapter: str | None = Field(default=None, description="A PEFT adapter directory.")
    adapter_base: str | None = Field(
        default=None,
        description="The base that the adapter's configuration names, where model.path is a copy "
        "of it under another name.",
    )
    quantization: dict[str, Any] | None = Field(
        None,
        description="Handed to transformers: {method: bitsandbytes, load_in_4bit: true, …} or "
        "{method: torchao, quant_type: …}.",
    )
    simulate: Simulate | None = None
    manifest: Claims = Claims()

    @field_validator("quantization")
    @classmethod
    def _method(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        known = ("bitsandbytes", "torchao")
        if value is not None and value.get("method") not in known:
            raise ValueError(f"method must be one of {known} (got {value.get('method')!r})")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> ModelSpec:
        if self.quantization and self.simulate:
            raise ValueError("give quantization or simulate, not both")
        return self


def load_model_spec(path: str | Path) -> ModelSpec:
    """Read a model file, following ``from:``; relative paths become absolute.

    Keys of the file replace those of its base, mapping by mapping; `simulate`, `quantization` and
    `manifest` are replaced whole, since half of one recipe joined to half of another is neither.
    """
    file = load_yaml(path)
    spec = parse(ModelSpec, file, _merged(file, ()))
    check_permitted(spec, file)
    return spec


_RUNS_CODE = {
    "trust_remote_code": "runs Python code that the model ships",
    "allow_pickle": "loads pickled weights, which can run any code",
}


def check_permitted(spec: ModelSpec, file: YamlFile | None = None) -> None:
    """Raise `InputError` where ``spec`` asks for code to be run and the user has not allowed it."""
    for key, what in _RUNS_CODE.items():
        if getattr(spec.model, key) and not permissions.code_allowed():
            if file is not None:
                raise file.error(what, ("model", key), permissions.REMEDY)
            raise InputError(what, key=f"model.{key}", remedy=permissions.REMEDY)


_WHOLE = ("simulate", "quantization", "manifest")
_OF_AN_ENGINE = ("python", "chunk", "options", "base_url")


def _merged(file: YamlFile, seen: tuple[Path, ...]) -> dict[str, Any]:
    here = file.path.resolve()
    if here in seen:
        raise file.error("refers to itself through `from`", ("from",))
    data = dict(file.data)
    base_name = data.pop("from", None)
    data = _absolute(file, data)
    if base_name is None:
        return data
    if not isinstance(base_name, str):
        raise file.error(f"must be a file name (got {base_name!r})", ("from",))
    base_path = file.named(base_name, ("from",))
    if not base_path.is_file():
        raise file.error(f"no such file: {base_path}", ("from",))
    base = _merged(load_yaml(base_path), (*seen, here))
    if "name" not in data:
        raise file.error("required and missing: a candidate needs a name of its own", ("name",))
    base.pop("manifest", None)
    if isinstance(data.get("model"), dict) and "path" in data["model"]:
        # Another file of weights has its own revision, tokenizer and tensors.
        base["model"] = {
            k: v
            for k, v in base["model"].items()
            if k not in ("revision", "tokenizer", "allow_unused")
        }
    if _engine(data, _engine(base)) != _engine(base):
        base["model"] = {k: v for k, v in base["model"].items() if k not in _OF_AN_ENGINE}
    for key, value in data.items():
        if key not in _WHOLE and isinstance(value, dict) and isinstance(base.get(key), dict):
            base[key] = {**base[key], **value}
        else:
            base[key] = value
    return base


def _engine(data: dict[str, Any], default: Any = "transformers") -> Any:
    """What ``data`` says of the engine, if anything."""
    model = data.get("model")
    return model.get("engine", default) if isinstance(model, dict) else default


def _absolute(file: YamlFile, data: dict[str, Any]) -> dict[str, Any]:
    """Make the local paths among ``data`` absolute, and refuse those that are not there."""
    model = data.get("model")
    if isinstance(model, dict):
        model = dict(model)
        if "backend" in model and "engine" not in model:  # its earlier name
            model["engine"] = model.pop("backend")
        for key in ("path", "tokenizer"):
            if isinstance(model.get(key), str):
                model[key] = _resolve(file, model[key], ("model", key))
        if isinstance(model.get("python"), str) and os.sep in model["python"]:
            # Not resolve(): a virtual environment's Python is a link out of it.
            model["python"] = os.path.abspath(
                file.path.parent / os.path.expanduser(model["python"])
            )
        data["model"] = model
    if isinstance(data.get("adapter"), str):
        data["adapter"] = _resolve(file, data["adapter"], ("adapter",))
    manifest = data.get("manifest")
    if isinstance(manifest, dict) and is_text_file(manifest.get("calibration_data")):
        path = file.named(manifest["calibration_data"], ("manifest", "calibration_data")).resolve()
        if not path.is_file():
            raise file.error(f"no such file: {path}", ("manifest", "calibration_data"))
        data["manifest"] = manifest | {"calibration_data": str(path)}
    return data


def is_text_file(text: Any) -> bool:
    """Whether ``calibration_data`` names a file rather than says something."""
    return isinstance(text, str) and Path(text).suffix in (".txt", ".jsonl", ".ndjson")


def _resolve(file: YamlFile, text: str, key: KeyPath) -> str:
    if text.startswith("package:"):
        return text
    try:
        path = file.path.parent / Path(text).expanduser()
        there = path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise file.error(f"cannot be a file name ({error})", key) from None
    if there:
        return os.path.abspath(path)  # not resolve(): a link into the hub cache has the suffix
    if text.startswith((".", "/", "~")) or text.endswith(".gguf") or text.count("/") > 1:
        raise file.error(
            f"no such file or directory: {path}",
            key,
            "Give a directory, a .gguf file, package:NAME/FILE, or a hub id such as org/name.",
        )
    return text
