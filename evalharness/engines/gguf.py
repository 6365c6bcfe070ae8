"""GGUF files through transformers: always unpacked into dense weights of the asked dtype.

``dtype: auto`` of a file with quantised blocks is float32.

Three traps of transformers 5 that this file is for:

- for some architectures, and on machines with the ``kernels`` package, the weights stay packed and
  attention changes with them unless ``GgufConfig(dequantize=True)`` is passed;
- ``config.quantization_config`` and ``hf_quantizer`` may be left behind on a dense model, which can
  then be neither saved nor quantised;
- the file's table of 50,000 tokens is parsed once for the configuration, again for the weights and
  again for the tokenizer, 4 s each, and the table of tensor names is built anew for every module,
  another 5 s. `read_once` keeps both for the length of one load.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from evalharness.errors import InputError


def load_model(path: Path, options: dict[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load ``path`` dense; ``options`` go to from_pretrained. Returns it with its loading info."""
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    if config is not None:
        options = options | {"quantization_config": config(dequantize=True)}
    with read_once():
        loader: Any = AutoModelForCausalLM
        model, info = loader.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True, **options
        )
    forget_quantizer(model)
    return model, info


def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer inside ``path``."""
    with read_once():
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True
        )
    return tokenizer


def forget_quantizer(model: PreTrainedModel) -> None:
    """Remove every trace of a quantiser from a dense model, so that it can be saved."""
    for owner in (model.config, model):
        for name in ("quantization_config", "hf_quantizer", "quantization_method"):
            if name in vars(owner):
                delattr(owner, name)
    if vars(model).get("is_quantized"):
        setattr(model, "is_quantized", False)  # noqa: B010


@contextmanager
def read_once() -> Iterator[None]:
    """Within the block, parse each GGUF file and build each table of tensor names once."""
    _needs_gguf()
    import gguf

    module: Any = gguf
    plain, names = module.GGUFReader, module.get_tensor_name_map
    if hasattr(plain, "cache_clear"):  # inside another such block
        yield
        return

    class Reader(plain):  # type: ignore[misc, valid-type]
        """Slices a plain array: slicing np.memmap takes three times as long."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    module.GGUFReader, module.get_tensor_name_map = cache(Reader), cache(names)
    try:
        yield
    finally:
        module.GGUFReader, module.get_tensor_name_map = plain, names


def _needs_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise InputError(
            "a GGUF file needs the gguf library",
            key="model.path",
            remedy="Run: pip install 'evalharness[gguf]'",
        ) from None
