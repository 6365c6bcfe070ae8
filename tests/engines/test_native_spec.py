"""Model files of engines in a process of their own: what is refused, by file, key and remedy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalharness.engines import llama_cpp
from evalharness.engines.registry import find_model, runs_apart
from evalharness.engines.workers.llama_cpp_worker import KV_TYPES
from evalharness.errors import InputError
from evalharness.spec.model import ModelSpec, load_model_spec

Model = Callable[..., ModelSpec]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the model file under test lies."""
    return tmp_path / "candidate.yaml"


def refused(file: Path, text: str) -> InputError:
    """What is said of a model file; JSON is YAML."""
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        find_model(load_model_spec(file), file)
    assert caught.value.path == str(file)
    return caught.value


def written(path: Path | str, engine: str, more: dict[str, Any], **beside: Any) -> str:
    return json.dumps(
        {"name": "m", "model": {"path": str(path), "engine": engine, **more}, **beside}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the builder of ONNX Runtime GenAI writes, as far as it is looked at."""
    path = tmp_path / "onnx"
    path.mkdir()
    (path / "model.onnx").write_bytes(b"")
    config = {"context_length": 64, "vocab_size": 256, "decoder": {"filename": "model.onnx"}}
    (path / "genai_config.json").write_text(json.dumps({"model": config}))
    return path


@pytest.mark.parametrize(
    ("more", "key", "message", "remedy"),
    [
        (
            {"options": {"kw": "f16"}},
            "model.options.kw",
            "llama.cpp has no such option",
            "Did you mean 'kv'? Known: kv, flash_attention, n_gpu_layers.",
        ),
        (
            {"options": {"rope": 1}},
            "model.options.rope",
            "llama.cpp has no such option",
            "Known: kv, flash_attention, n_gpu_layers.",
        ),
        (
            {"options": {"n_gpu_layers": True}},
            "model.options.n_gpu_layers",
            "must be of type int (got True)",
            None,
        ),
        (
            {"options": {"flash_attention": "yes"}},
            "model.options.flash_attention",
            "must be of type bool (got 'yes')",
            None,
        ),
        ({"options": {"kv": 8}}, "model.options.kv", "must be of type str (got 8)", None),
        (
            {"options": {"kv": "q8"}},
            "model.options.kv",
            "llama.cpp has no type 'q8' of keys and values",
            "Did you mean 'q8_0'? Known: f16, f32, bf16, q8_0, q5_1, q5_0, q4_1, q4_0.",
        ),
        (
            {"options": {"kv": "q8_0", "flash_attention": False}},
            "model.options.kv",
            "llama.cpp quantises values (q8_0) only with flash attention",
            "Set flash_attention: true beside it.",
        ),
    ],
)
def test_llama_cpp_refuses_options_by_key(
    file: Path, gguf_file: Path, more: dict[str, Any], key: str, message: str, remedy: str | None
) -> None:
    """Before anything is started."""
    error = refused(file, written(gguf_file, "llama.cpp", more))
    assert (error.key, error.message) == (key, message)
    assert error.remedy == remedy


def test_llama_cpp_takes_what_its_worker_knows(file: Path, gguf_file: Path) -> None:
    """Every type of keys and values, and no other."""
    assert set(llama_cpp.KV) == set(KV_TYPES)
    for kv in llama_cpp.KV:
        options = {"kv": kv, "flash_attention": True, "n_gpu_layers": 0}
        file.write_text(written(gguf_file, "llama.cpp", {"options": options, "chunk": 8192}))
        spec = load_model_spec(file)
        assert runs_apart(spec)
        assert find_model(spec, file).path == gguf_file


def test_llama_cpp_runs_nothing_but_gguf_files(file: Path, saved: Path) -> None:
    """A folder of safetensors, a file that is not there."""
    error = refused(file, written(saved, "llama.cpp", {}))
    assert error.key == "model.path"
    assert error.message.startswith("llama.cpp runs GGUF files (got ")
    assert error.remedy == "Give a .gguf file, or use engine: transformers."
    error = refused(file, written("none.gguf", "llama.cpp", {}))
    assert error.key == "model.path"
    assert "no such file or directory" in error.message


@pytest.mark.parametrize("engine", ["llama.cpp", "onnx"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("simulate", {"weights": {"bits": 4, "granularity": "channel"}}),
        ("quantization", {"method": "bitsandbytes", "load_in_4bit": True}),
        ("adapter", "."),
    ],
)
def test_what_only_transformers_can_do_is_refused(
    file: Path, gguf_file: Path, folder: Path, engine: str, key: str, value: Any
) -> None:
    """Rather than left out."""
    path = gguf_file if engine == "llama.cpp" else folder
    error = refused(file, written(path, engine, {}, **{key: value}))
    assert error.key == key
    assert error.message == f"{engine} runs a model as its file is, without {key}"
    assert error.remedy == "Leave it out, or use engine: transformers."


@pytest.mark.parametrize(
    ("key", "value"), [("python", "/usr/bin/python3"), ("chunk", 64), ("options", {"kv": "f32"})]
)
def test_transformers_refuses_what_is_for_other_engines(
    file: Path, saved: Path, key: str, value: Any
) -> None:
    """It would change nothing, and look as if it did."""
    error = refused(file, written(saved, "transformers", {key: value}))
    assert error.key == f"model.{key}"
    assert error.message == ("is for engines outside this process, and this is transformers")
    assert error.remedy == "Leave it out, or name an engine: llama.cpp, onnx, openai."


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("chunk", 0, "greater than or equal to 1"),
        ("chunk", 8193, "less than or equal to 8192"),
        ("chunk", "many", "integer"),
        ("python", 3, "string"),
        ("options", ["kv"], "dictionary"),
        ("engine", "lama.cpp", "unknown engine 'lama.cpp'"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(
    file: Path, gguf_file: Path, key: str, value: Any, message: str
) -> None:
    """By key."""
    error = refused(file, written(gguf_file, "llama.cpp", {key: value}))
    assert error.key == f"model.{key}"
    assert message in str(error)


def test_a_python_that_is_none_is_refused_before_anything_is_loaded(
    file: Path, gguf_file: Path
) -> None:
    """A path, a name on the path, a file that cannot be run; relative to the model file."""
    (file.parent / "plain").write_text("")
    for python, named in {
        "./nowhere/python": str(file.parent / "nowhere" / "python"),
        "./plain": str(file.parent / "plain"),
        "python-of-nobody": "python-of-nobody",
        "": "",
    }.items():
        error = refused(file, written(gguf_file, "llama.cpp", {"python": python}))
        assert (error.key, error.message) == ("model.python", f"{named} cannot be run")
        assert error.remedy == "Give the path of the Python that the engine is installed in."
    file.write_text(written(gguf_file, "llama.cpp", {"python": sys.executable}))
    assert find_model(load_model_spec(file), file).path == gguf_file


def test_onnx_finds_what_its_builder_wrote(file: Path, folder: Path) -> None:
    """The folder, as it is."""
    file.write_text(written(folder, "onnx", {}))
    assert find_model(load_model_spec(file), file).path == folder


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "{folder} has no genai_config.json"),
        ("{", "{config} cannot be read ("),
        ("[]", "{config} must hold a JSON object (got list)"),
        ("{}", "{config} names no decoder"),
        ({"model": {"decoder": "model.onnx"}}, "{config} names no decoder"),
        (
            {"context_length": 0},
            "{config}: model.context_length must be a positive number (got 0)",
        ),
        ({"vocab_size": None}, "{config}: model.vocab_size must be a positive number (got None)"),
        ({"vocab_size": True}, "{config}: model.vocab_size must be a positive number (got True)"),
        ({"decoder": {"filename": "other.onnx"}}, "{config} names 'other.onnx', which is not"),
        ({"decoder": {"filename": "../x.onnx"}}, "{config} names '../x.onnx', which is not there"),
        ({"decoder": {}}, "{config} names 'None', which is not there"),
    ],
)
def test_onnx_refuses_a_folder_that_is_none_of_its_own(
    file: Path, folder: Path, config: Any, message: str
) -> None:
    """It says what is missing."""
    path = folder / "genai_config.json"
    if isinstance(config, dict):
        if "model" not in config:
            config = {"model": json.loads(path.read_text())["model"] | config}
        config = json.dumps(config)
    if config is None:
        path.unlink()
    else:
        path.write_text(config)
    error = refused(file, written(folder, "onnx", {}))
    assert error.key == "model.path"
    assert error.message.startswith(message.format(folder=folder, config=path))


def test_onnx_has_no_options(file: Path, folder: Path) -> None:
    """None are known."""
    error = refused(file, written(folder, "onnx", {"options": {"kv": "f32"}}))
    assert (error.key, error.message) == ("model.options.kv", "onnx has no such option")


BASE = "name: b\nmodel: {path: org/name, ENGINE, chunk: 64, python: ./py, options: {kv: f32}}\n"
OWN = (64, {"kv": "f32"})


@pytest.mark.parametrize("base", ["engine: llama.cpp", "backend: llama.cpp"])
@pytest.mark.parametrize(
    ("candidate", "engine", "kept"),
    [
        ("dtype: float32", "llama.cpp", OWN),
        ("engine: llama.cpp", "llama.cpp", OWN),
        ("backend: llama.cpp", "llama.cpp", OWN),
        ("engine: transformers", "transformers", (None, {})),
        ("backend: transformers", "transformers", (None, {})),
        ("{engine: onnx, chunk: 8}", "onnx", (8, {})),
        ("{options: {kv: bf16}}", "llama.cpp", (64, {"kv": "bf16"})),
    ],
)
def test_settings_of_an_engine_are_inherited_with_it_alone(
    file: Path, base: str, candidate: str, engine: str, kept: tuple[Any, Any]
) -> None:
    """Another engine has its own; a relative Python is relative to the file that names it."""
    (file.parent / "base.yaml").write_text(BASE.replace("ENGINE", base))
    braced = candidate if candidate.startswith("{") else f"{{{candidate}}}"
    file.write_text(f"from: base.yaml\nname: c\nmodel: {braced}\n")
    model = load_model_spec(file).model
    assert model.engine == engine
    assert (model.chunk, model.options) == kept
    assert model.python == (str(file.parent / "py") if engine == "llama.cpp" else None)


def test_a_python_without_a_folder_is_looked_for_on_the_path(file: Path) -> None:
    """As a shell would."""
    file.write_text(written("org/name", "llama.cpp", {"python": "python3.11"}))
    assert load_model_spec(file).model.python == "python3.11"
