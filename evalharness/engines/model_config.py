"""``config.json`` against the tensors that it is about, before a model of its sizes is built."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalharness.engines.file_headers import tensor_shapes
from evalharness.errors import InputError, plural, short

# How a checkpoint may be quantised: what transformers knows and is measured here. A contract test
# holds this against the release that is installed.
METHODS = frozenset(
    [
        "aqlm",
        "auto-round",
        "awq",
        "bitnet",
        "bitsandbytes",
        "bitsandbytes_4bit",
        "bitsandbytes_8bit",
        "compressed-tensors",
        "eetq",
        "fbgemm_fp8",
        "fouroversix",
        "fp8",
        "fp_quant",
        "gptq",
        "higgs",
        "metal",
        "mxfp4",
        "mxfp8",
        "nvfp4",
        "quark",
        "sinq",
        "spqr",
        "torchao",
        "vptq",
    ]
)
_LAYERS = frozenset(
    [
        "num_hidden_layers",
        "n_layer",
        "n_layers",
        "num_layers",
        "num_decoder_layers",
        "encoder_layers",
        "decoder_layers",
    ]
)
_SIZES = frozenset(
    [
        "hidden_size",
        "n_embd",
        "d_model",
        "dim",
        "intermediate_size",
        "n_inner",
        "ffn_dim",
        "ffn_hidden_size",
        "vocab_size",
        "num_attention_heads",
        "n_head",
        "n_heads",
        "num_key_value_heads",
        "head_dim",
        "num_experts",
        "n_routed_experts",
        "num_local_experts",
        "moe_intermediate_size",
        "embedding_size",
        "word_embed_proj_dim",
    ]
)
_CODES = 32  # at most so many weights in one number of a packed tensor
_BITSANDBYTES = (".SCB", ".absmax", ".quant_state", ".weight_format")


def check_config(place: Path, config: Mapping[str, Any], key: str) -> None:
    """Raise `InputError` for sizes beyond the tensors of ``place``, or an unknown quantisation."""
    file = place / "config.json"
    shapes = tensor_shapes(place, key)
    inner = config.get("text_config")
    if not isinstance(inner, Mapping | None):
        raise InputError(f"{file}: text_config must be a mapping (got {short(inner)})", key=key)
    _check_quantization(place, config, shapes, key)
    if not shapes:
        return
    largest = max(map(math.prod, shapes.values()))
    for name, value in _numbers(config):
        layers = name in _LAYERS
        most = len(shapes) if layers else _CODES * largest
        if not 0 <= value <= most:
            held = (
                plural(len(shapes), "tensor")
                if layers
                else f"a largest tensor of {largest:,} numbers"
            )
            raise InputError(
                f"{file}: {name} is {short(value)}, and the weights beside it are {held}",
                key=key,
                remedy="Give the configuration that belongs to these weights.",
            )


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The sizes in a configuration and those in it, such as ``text_config``."""
    left = [config]
    while left:
        current = left.pop()
        left += [value for value in current.values() if isinstance(value, Mapping)]
        yield from ((k, v) for k, v in current.items() if _is_size(k, v))


def _is_size(name: str, value: Any) -> bool:
    return name in _LAYERS | _SIZES and isinstance(value, int | float)


def _check_quantization(
    place: Path, config: Mapping[str, Any], shapes: Mapping[str, Any], key: str
) -> None:
    found = config.get("quantization_config")
    file = place / "config.json"
    if not found and (place / "hf_quant_config.json").is_file():
        found, file = {"quant_method": "modelopt"}, place / "hf_quant_config.json"
    if not found:
        return
    if not isinstance(found, dict):
        raise InputError(
            f"{file}: quantization_config must be a mapping (got {short(found)})", key=key
        )
    method = found.get("quant_method")
    if method is None and (found.get("load_in_4bit") or found.get("load_in_8bit")):
        method = "bitsandbytes"  # as older releases wrote it
    if not isinstance(method, str) or method not in METHODS:
        raise InputError(
            f"{file}: the weights are quantised by {short(method)}, which is not supported",
            key=key,
            remedy=f"Supported are {', '.join(sorted(METHODS))}; or give the dense weights that it "
            "stands for.",
        )
    packed = any(part in f"{name}." for name in shapes for part in _BITSANDBYTES)
    if method.startswith("bitsandbytes") and shapes and not packed:
        raise InputError(
            f"{file} says that the weights are quantised by bitsandbytes, and they are plain",
            key=key,
            remedy="Take quantization_config out of it, and have them quantised on loading with "
            "`quantization: {method: bitsandbytes, …}` in the model file.",
        )
