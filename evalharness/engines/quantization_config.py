"""``quantization:`` of a model file as the configuration object of its library.

    {method: bitsandbytes, load_in_4bit: true, bnb_4bit_quant_type: nf4, …}
    {method: torchao, quant_type: int8_weight_only, …}

Everything but ``method`` is handed on as it is: to ``BitsAndBytesConfig``, or to torchao's
configuration class of that name (``int8_weight_only`` → ``Int8WeightOnlyConfig``; transformers 5
takes the object only). There a dtype is given by its name, and ``group_size`` also where torchao
wants ``PerGroup(group_size)``. What transformers leaves dense by itself, the output head, stays so.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from evalharness.compat.quantizers import option_names, per_group, torchao_schemes
from evalharness.errors import InputError, nearest
from evalharness.spec.model import ModelSpec

_EXTRA = {"bitsandbytes": "bnb", "torchao": "torchao"}
_TRANSFORMERS_OPTIONS = ("modules_to_not_convert", "include_input_output_embeddings")


def quantization_config(spec: ModelSpec) -> Any:
    """Build the quantisation configuration of ``spec``; raise `InputError` when it is wrong."""
    assert spec.quantization is not None
    options = dict(spec.quantization)
    method = options.pop("method")
    if find_spec(method) is None:
        raise InputError(
            f"{method} is not installed",
            key="quantization.method",
            remedy=f"Run: pip install 'evalharness[{_EXTRA[method]}]'",
        )
    try:
        return _bitsandbytes(options) if method == "bitsandbytes" else _torchao(options)
    except (TypeError, ValueError) as error:
        raise InputError(str(error).splitlines()[0], key="quantization") from None


def _bitsandbytes(options: dict[str, Any]) -> Any:
    from transformers import BitsAndBytesConfig

    _refuse_unknown(options, BitsAndBytesConfig)
    if bool(options.get("load_in_4bit")) == bool(options.get("load_in_8bit")):
        raise InputError("one of load_in_4bit and load_in_8bit must be true", key="quantization")
    made: Any = BitsAndBytesConfig
    return made(**options)


def _torchao(options: dict[str, Any]) -> Any:
    from transformers import TorchAoConfig

    kind = options.pop("quant_type", None)
    classes = {_snake(name): value for name, value in torchao_schemes().items()}
    if not isinstance(kind, str) or _snake(kind.removesuffix("Config")) not in classes:
        hint = nearest(str(kind), classes) or "known: " + ", ".join(sorted(classes))
        raise InputError(
            f"unknown torchao scheme {kind!r}", key="quantization.quant_type", remedy=hint
        )
    outer = {k: options.pop(k) for k in _TRANSFORMERS_OPTIONS if k in options}
    made = classes[_snake(kind.removesuffix("Config"))]
    known = option_names(made)
    if "group_size" in options and "group_size" not in known and "granularity" in known:
        options["granularity"] = per_group(options.pop("group_size"))
    _refuse_unknown(options, made)
    for key in [k for k in options if k.endswith("dtype")]:
        dtype = getattr(torch, str(options[key]), None)
        if not isinstance(dtype, torch.dtype):
            raise InputError(f"unknown dtype {options[key]!r}", key=f"quantization.{key}")
        options[key] = dtype
    return TorchAoConfig(made(**options), **outer)


def _refuse_unknown(options: dict[str, Any], configuration: Any) -> None:
    """A key with a typo must not pass."""
    known = option_names(configuration)
    for key in options:
        if key not in known:
            hint = nearest(key, known)
            raise InputError(
                "unknown key",
                key=f"quantization.{key}",
                remedy=hint[:1].upper() + hint[1:] if hint else f"Known keys: {', '.join(known)}.",
            )


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
