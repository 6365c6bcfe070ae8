"""Headers and configurations that lie: refused in a moment, by the name of their file."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from evalharness.engines.locate import resolve
from evalharness.errors import InputError
from evalharness.spec.model import ModelSource

AGAIN = "Copy or download it again."
HUGE = 1 << 63


def refused(path: Path) -> str:
    """What is said of the model at ``path``."""
    with pytest.raises(InputError) as caught:
        resolve(ModelSource(path=str(path)))
    assert len(str(caught.value)) < 1000
    return str(caught.value)


# --- safetensors ----------------------------------------------------------------------------------


def safetensors(header: bytes | dict[str, Any], data: int = 64) -> bytes:
    """A file of this header and zeros."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def directory(path: Path, weights: bytes, config: dict[str, Any] | bytes | None = None) -> Path:
    """A model of these weights and this configuration."""
    text = config if isinstance(config, bytes) else json.dumps(config or {}).encode()
    (path / "config.json").write_bytes(text)
    (path / "model.safetensors").write_bytes(weights)
    return path


def tensor(**changed: Any) -> dict[str, Any]:
    """Four numbers, with something else about them."""
    found = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changed}
    return {"w": {k: v for k, v in found.items() if v is not None}}


HEADERS: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "a list": (b"[1, 2]", "its header must be a mapping, got [1, 2]"),
    "a tensor that is a number": ({"w": 3}, "tensor 'w': must be a mapping, got 3"),
    "no dtype": (tensor(dtype=None), "tensor 'w': dtype must be text, got None"),
    "a dtype that is a number": (tensor(dtype=7), "dtype must be text, got 7"),
    "text for a count": (tensor(shape=["4"]), "shape must be a list of counts, got ['4']"),
    "a negative count": (tensor(shape=[-4]), "shape must be a list of counts, got [-4]"),
    "a count that is true": (tensor(shape=[True]), "shape must be a list of counts, got [True]"),
    "no shape": (tensor(shape=None), "shape must be a list of counts, got None"),
    "many axes": (tensor(shape=[1] * 5000), "shape must be a list of counts, got [1, 1, 1"),
    "a huge shape": (tensor(shape=[1 << 40]), "does not take 16 bytes"),
    "text for an offset": (tensor(data_offsets=["0", "16"]), "must be two rising counts"),
    "an infinite offset": (
        b'{"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1e999]}}',
        "data_offsets must be two rising counts, got [0, inf]",
    ),
    "a negative offset": (tensor(data_offsets=[-16, 0]), "must be two rising counts"),
    "falling offsets": (tensor(data_offsets=[16, 0]), "must be two rising counts"),
    "three offsets": (tensor(data_offsets=[0, 1, 16]), "must be two rising counts"),
    "a number of a thousand digits": (tensor(shape=[10**1000]), "shape must be a list of counts"),
    "metadata that is text": ({"__metadata__": "pt"}, "its metadata must be a mapping, got 'pt'"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_safetensors_header_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    """With the tensor and what was wrong about it."""
    header, said = HEADERS[name]
    message = refused(directory(tmp_path, safetensors(header)))
    start = f"model.path: {tmp_path / 'model.safetensors'} is not a safetensors file ("
    assert message.startswith(start)
    assert said in message
    assert message.endswith(AGAIN)


@pytest.mark.parametrize(
    "header",
    [b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe{}", b"{" + b"9" * 5000 + b"}"],
    ids=["nested lists", "nested mappings", "no UTF-8", "digits"],
)
def test_a_safetensors_header_that_is_no_json_is_refused(header: bytes, tmp_path: Path) -> None:
    """However deep it is nested."""
    file = tmp_path / "model.safetensors"
    expected = f"model.path: {file} is not a safetensors file. {AGAIN}"
    assert refused(directory(tmp_path, safetensors(header))) == expected


# --- GGUF -----------------------------------------------------------------------------------------


def text(value: str, length: int | None = None) -> bytes:
    """A string of GGUF, which may say another length than it has."""
    raw = value.encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def gguf(*keys: bytes, tensors: bytes = b"", count: int = 0, more: int = 0) -> bytes:
    """A file of these keys; ``more`` keys are announced than there are."""
    return b"GGUF" + struct.pack("<IQQ", 3, count, len(keys) + more) + b"".join(keys) + tensors


def nested(depth: int) -> bytes:
    """An array in an array …"""
    return text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * depth + bytes(16)


def row(name: str = "w", axes: int = 1, size: int = 4, kind: int = 0, offset: int = 0) -> bytes:
    """A row of the tensor table."""
    shape = struct.pack("<Q", size) * min(axes, 4)
    return text(name) + struct.pack("<I", axes) + shape + struct.pack("<IQ", kind, offset)


FILES = {
    "a key of 2^63 characters": gguf(text("k", HUGE) + struct.pack("<I", 4) + bytes(4)),
    "a key of 2^64 - 1 characters": gguf(text("k", 2 * HUGE - 1) + struct.pack("<I", 4)),
    "a string of 2^63 characters": gguf(text("k") + struct.pack("<I", 8) + text("v", HUGE)),
    "an array of 2^63 numbers": gguf(text("k") + struct.pack("<IIQ", 9, 10, HUGE)),
    "an array of 2^63 strings": gguf(text("k") + struct.pack("<IIQ", 9, 8, HUGE) + bytes(64)),
    "arrays 5,000 deep": gguf(nested(5000)),
    "an unknown value type": gguf(text("k") + struct.pack("<I", 99)),
    "2^62 keys": gguf(more=1 << 62),
    "2^63 tensors": gguf(count=HUGE),
    "a tensor of 2^32 axes": gguf(tensors=row(axes=(1 << 32) - 1), count=1),
    "a tensor beyond the file": gguf(tensors=row(offset=HUGE), count=1),
    "a tensor of 2^63 numbers": gguf(tensors=row(size=HUGE), count=1),
    "a name that is no UTF-8": gguf(tensors=struct.pack("<Q", 1) + b"\xff" + bytes(32), count=1),
    "a million layers": gguf(
        text("llama.block_count") + struct.pack("<II", 4, 1_000_000),
        tensors=row() + bytes(16),
        count=1,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_gguf_file_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    """In bounded time and memory, whatever lengths it claims."""
    file = tmp_path / "model.gguf"
    file.write_bytes(FILES[name])
    assert refused(file) == f"model.path: {file} is cut short or damaged. {AGAIN}"


# --- config.json ----------------------------------------------------------------------------------

CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "a million layers": (
        {"num_hidden_layers": 1_000_000},
        "num_hidden_layers is 1000000, and the weights beside it are 1 tensor",
    ),
    "layers further in": ({"text_config": {"n_layer": 999}}, "n_layer is 999, and the weights"),
    "no configuration of a text": ({"text_config": [1]}, "text_config must be a mapping (got [1])"),
    "a huge width": ({"hidden_size": 10**9}, "hidden_size is 1000000000, and the weights beside"),
    "a huge vocabulary": ({"vocab_size": 10**18}, "are a largest tensor of 4 numbers"),
    "a negative size": ({"hidden_size": -1}, "hidden_size is -1"),
    "an infinite size": ({"hidden_size": float("inf")}, "hidden_size is inf"),
    "a thousand digits": ({"vocab_size": 10**1000}, "vocab_size is 1000000000"),
    "an unknown quantisation": (
        {"quantization_config": {"quant_method": "exl2"}},
        "the weights are quantised by 'exl2', which is not supported. Supported are aqlm, ",
    ),
    "quanto": ({"quantization_config": {"quant_method": "quanto"}}, "quantised by 'quanto'"),
    "HQQ": ({"quantization_config": {"quant_method": "hqq"}}, "quantised by 'hqq'"),
    "no method": ({"quantization_config": {"bits": 4}}, "quantised by None"),
    "a method that is a list": ({"quantization_config": {"quant_method": []}}, "quantised by []"),
    "a list": ({"quantization_config": [4]}, "quantization_config must be a mapping (got [4])"),
    "bitsandbytes on plain weights": (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        "says that the weights are quantised by bitsandbytes, and they are plain",
    ),
    "the same as older releases wrote it": (
        {"quantization_config": {"load_in_8bit": True}},
        "says that the weights are quantised by bitsandbytes, and they are plain",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_is_not_of_these_weights_is_refused(name: str, tmp_path: Path) -> None:
    """Before a model of its sizes is built."""
    config, said = CONFIGS[name]
    message = refused(directory(tmp_path, safetensors(tensor()), config))
    assert message.startswith(f"model.path: {tmp_path / 'config.json'}")
    assert said in message


def test_a_modelopt_checkpoint_is_named(tmp_path: Path) -> None:
    """Its quantisation is in a file of its own."""
    (tmp_path / "hf_quant_config.json").write_text("{}")
    message = refused(directory(tmp_path, safetensors(tensor())))
    assert (
        f"{tmp_path / 'hf_quant_config.json'}: the weights are quantised by 'modelopt'" in message
    )


def test_a_configuration_nested_without_end_is_refused(tmp_path: Path) -> None:
    """As a file that cannot be read."""
    message = refused(directory(tmp_path, safetensors(tensor()), b'{"a":' * 50_000))
    assert message.startswith(f"model.path: {tmp_path / 'config.json'} cannot be read (")


# --- several files --------------------------------------------------------------------------------


def test_stale_weights_beside_an_index_are_refused(tmp_path: Path) -> None:
    """Otherwise the whole file is measured, whichever is meant."""
    shard = "model-00001-of-00001.safetensors"
    directory(tmp_path, safetensors(tensor()))
    (tmp_path / shard).write_bytes(safetensors(tensor()))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": shard}}))
    assert (
        f"{tmp_path} holds two sets of weights: model.safetensors, and {index.name} with {shard}"
        in (refused(tmp_path))
    )
    index.write_text(json.dumps({"weight_map": {"w": "model.safetensors"}}))
    assert resolve(ModelSource(path=str(tmp_path))).path == tmp_path


def test_an_index_that_names_no_files_is_refused(tmp_path: Path) -> None:
    """With what it has in their place."""
    (tmp_path / "config.json").write_text("{}")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": 10**1000}}))
    assert f"{index}: weight_map must name files (got 1000" in refused(tmp_path)
