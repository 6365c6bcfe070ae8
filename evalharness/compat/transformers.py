"""Private and version-fragile parts of transformers.

What each function relies on, `tests/compat/test_transformers.py` holds against the release that is
installed. transformers itself is imported when a function needs it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# --- attention ------------------------------------------------------------------------------------


def attention_of(model: Any) -> str | None:
    """Return the attention kernel that ``model`` computes with, such as ``sdpa``; None: unsaid.

    transformers has a method to set it and none to read it.
    """
    kernel = getattr(model.config.get_text_config(), "_attn_implementation", None)
    return None if kernel is None else str(kernel)


def takes_attention(model: Any, kernel: str) -> bool:
    """Whether ``model`` can compute with ``kernel`` instead of its own; it is left as it was."""
    own = attention_of(model)
    try:
        model.set_attn_implementation(kernel)
    except (ValueError, AttributeError, ImportError):
        return False
    changed = attention_of(model) == kernel
    model.set_attn_implementation(own)
    return changed


@contextmanager
def attention(model: Any, kernel: str) -> Iterator[None]:
    """Within the block, ``model`` computes with the attention ``kernel``."""
    own = attention_of(model)
    model.set_attn_implementation(kernel)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def additive_mask(allowed_B1TP: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask (B, 1, T, P) that a model adds to its attention scores as it is.

    transformers builds a mask of its own from one of two dimensions and takes one of four unread.
    sdpa takes booleans too, and then makes this of them in every layer.

    Parameters
    ----------
    allowed_B1TP : bool, whether each of T tokens may see each of P.
    dtype : what the model computes in.

    """
    import torch

    mask = torch.zeros_like(allowed_B1TP, dtype=dtype)
    return mask.masked_fill_(~allowed_B1TP, torch.finfo(dtype).min)


def prefix_cache(run: Callable[..., Any], ids_1P: Tensor) -> Any:
    """Feed a prefix to ``run`` and return its cache, put in front of any batch that comes later.

    The prefix's keys and values, (1, heads, P, dim) a layer, are expanded to each batch, and
    nothing of a batch is stored, so that the next one finds the prefix alone.
    """
    from transformers import DynamicCache

    fed, cache = DynamicCache(), DynamicCache()
    run(input_ids=ids_1P, past_key_values=fed, use_cache=True)
    cache.layers = [_prefix_layer()(layer) for layer in fed.layers]
    return cache


@functools.cache
def _prefix_layer() -> type:
    import torch
    from transformers.cache_utils import DynamicLayer

    class Prefix(DynamicLayer):  # type: ignore[misc]  # transformers' types are skipped
        """Keys and values of a prefix."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.keys, self.values = layer.keys, layer.values
            self.dtype, self.device = layer.keys.dtype, layer.keys.device
            self.is_initialized = True

        def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            """Return the prefix and the batch together."""
            size = (keys.shape[0], -1, -1, -1)
            return (
                torch.cat([self.keys.expand(size), keys], dim=-2),
                torch.cat([self.values.expand(size), values], dim=-2),
            )

    return Prefix


# --- configurations -------------------------------------------------------------------------------


def settings_of(model: Any) -> dict[str, Any]:
    """Everything in a model's configuration that may change its numbers, names of releases aside.

    Keys that begin with ``_`` say where it was loaded from and how.
    """
    return {
        key: value
        for key, value in model.config.to_dict().items()
        if not key.startswith("_") and key != "transformers_version"
    }


# Special tokens, generation, and whether equal matrices are one: not of a forward pass.
_NOT_OF_A_PASS = re.compile(
    r"tie_word_embeddings|use_cache|\w+_token_id|architectures|id2label|label2id|return_dict|output_\w+"
)


def deciding_settings(model: Any) -> dict[str, Any]:
    """What of the configuration, and of how it was loaded, decides a forward pass."""
    kept = {k: v for k, v in settings_of(model).items() if not _NOT_OF_A_PASS.fullmatch(k)}
    return kept | {"class": type(model).__name__, "attention": attention_of(model)}


def generation_settings(model: Any) -> dict[str, Any]:
    """Everything in a model's generation configuration that is not the default."""
    config = getattr(model, "generation_config", None)
    found = {} if config is None else dict(config.to_diff_dict())
    return {k: v for k, v in found.items() if not k.startswith("_") and k != "transformers_version"}


def hidden_size(model: Any) -> int | None:
    """Return the width C of the hidden states; None for a model that does not say."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        return None
    size = getattr(config.get_text_config(), "hidden_size", None)
    return None if size is None else int(size)


def vocabulary_size(model: Any) -> int:
    """Return the rows of the embedding, as the configuration states them."""
    return int(model.config.get_text_config().vocab_size)


# --- modules --------------------------------------------------------------------------------------

_EXPERTS = re.compile(r"(?:^|\.)experts$")


def is_conv1d(module: nn.Module) -> bool:
    """Whether ``module`` is GPT-2's linear layer, whose weight is (inputs I, outputs O)."""
    return type(module).__name__ == "Conv1D"


def is_expert_list(name: str) -> bool:
    """Whether a module of this name holds the experts of a layer."""
    return bool(_EXPERTS.search(name))


def expert_count(module: nn.Module) -> int | None:
    """How many experts a module of fused experts holds; None where it does not say."""
    count = getattr(module, "num_experts", None)
    return count if isinstance(count, int) else None


def is_router(module: nn.Module) -> bool:
    """Whether ``module`` scores the experts of its layer; it returns more than a tensor."""
    return type(module).__name__.endswith("Router")


def chosen_experts(out: Any) -> Tensor | None:
    """The indices of the chosen experts in what a router returned, (N, k); None: it gives none."""
    parts = out if isinstance(out, tuple | list) else ()
    whole = [t for t in _tensors(parts) if not t.is_floating_point()]
    return whole[-1].reshape(-1, whole[-1].shape[-1]) if whole else None


def scored_experts(out: Any) -> int | None:
    """How many experts a router chooses among: the width of its logits."""
    parts = out if isinstance(out, tuple | list) else ()
    return next((int(t.shape[-1]) for t in _tensors(parts) if t.is_floating_point()), None)


def hidden_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states among the arguments of a decoder block."""
    return cast("Tensor", args[0] if args else kwargs["hidden_states"])


def with_hidden_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a decoder block with other hidden states."""
    if args:
        return (x, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": x}


def hidden_result(out: Any) -> Tensor:
    """The hidden states among what a decoder block returns."""
    import torch

    tensor = out[0] if isinstance(out, tuple | list) else out
    assert isinstance(tensor, torch.Tensor)
    return tensor


def untie_head(model: Any, head: str) -> None:
    """Note that the head named ``head`` has a weight of its own, so that saving keeps it."""
    model.config.tie_word_embeddings = False
    getattr(model, "all_tied_weights_keys", {}).pop(f"{head}.weight", None)


def _tensors(parts: Any) -> list[Tensor]:
    import torch

    return [p for p in parts if isinstance(p, torch.Tensor)]


# Buffers that older releases saved and this one computes: masks, rotary tables, positions.
_OLD_BUFFER = re.compile(
    r"(^|\.)(inv_freq|position_ids|masked_bias|(cos|sin)_cached|(attn|attention|self_attn)\.bias)$"
)


def is_buffer_of_old(name: str) -> bool:
    """Whether a tensor of a checkpoint holds nothing that was learned."""
    return bool(_OLD_BUFFER.search(name))


# --- loading --------------------------------------------------------------------------------------

Why = Literal["code", "architecture", "task", "gguf", "attention", "library", "conversion"]


@dataclass(frozen=True)
class Loading:
    """A model, and what of it is not as its files have it; all lists are sorted by name."""

    model: Any
    missing: list[str]  # weights that no file holds
    mismatched: list[tuple[str, list[int], list[int]]]  # name, shape held, shape needed
    unexpected: list[str]  # tensors without a place in the model
    errors: list[str]


def load_causal_model(place: Path, **options: Any) -> Loading:
    """Load a causal language model from local files; a GGUF file becomes dense.

    ``options`` go to ``from_pretrained``. Mismatched shapes are reported rather than raised, which
    would name one of them.
    """
    from transformers import AutoModelForCausalLM

    more: dict[str, Any] = {
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
        "local_files_only": True,
    }
    directory = place
    if place.suffix == ".gguf":
        directory = place.parent
        more |= {"gguf_file": place.name, **_dense_gguf()}
    loader: Any = AutoModelForCausalLM
    model, info = loader.from_pretrained(directory, **options, **more)
    if place.suffix == ".gguf":
        forget_quantizer(model)
    return Loading(
        model,
        sorted(info["missing_keys"]),
        [(n, list(held), list(needed)) for n, held, needed in sorted(info["mismatched_keys"])],
        sorted(info["unexpected_keys"]),
        [str(message) for message in info.get("error_msgs") or ()],
    )


def _dense_gguf() -> dict[str, Any]:
    """The option that unpacks a GGUF file.

    Without it, for some architectures and on machines with the ``kernels`` package, the weights
    stay packed and attention changes with them. Older releases always unpack.
    """
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def is_quantized(model: Any) -> bool:
    """Whether a quantiser of transformers made ``model``."""
    return getattr(model, "hf_quantizer", None) is not None


def forget_quantizer(model: Any) -> None:
    """Remove every trace of a quantiser from a dense model.

    Reading a GGUF file may leave one behind; the model can then be neither saved nor quantised.
    """
    for owner in (model.config, model):
        for name in ("quantization_config", "hf_quantizer", "quantization_method"):
            if name in vars(owner):
                delattr(owner, name)
    if vars(model).get("is_quantized"):
        model.is_quantized = False


def why_not_loaded(error: Exception) -> Why | None:
    """Return what a failed load is about, by the words of the error; None: not known.

    ``code``: the files bring Python code; ``architecture``: not known to this release; ``task``: no
    causal language model; ``gguf``: a GGUF file it cannot read; ``attention``: that kernel cannot
    be used; ``library``: another package is missing; ``conversion``: a quantiser failed.
    """
    words: dict[Why, tuple[str, ...]] = {
        "code": ("trust_remote_code",),
        "architecture": ("does not recognize this architecture", "unrecognized model"),
        "task": ("unrecognized configuration class",),
        "attention": ("attn_implementation", "flash_attention", "flashattention"),
        "conversion": ("automatic conversion of the weights",),
    }
    text = " ".join(str(error).split()).lower()
    found = [why for why, parts in words.items() if any(p in text for p in parts)]
    if "gguf" in text and "not supported" in text:
        found.append("gguf")
    if isinstance(error, ImportError):
        found.append("library")
    order: tuple[Why, ...]
    order = ("code", "architecture", "task", "gguf", "attention", "library", "conversion")
    return next((why for why in order if why in found), None)


def conversion_error(error: Exception) -> str | None:
    """Return the first error of a quantiser behind ``error``, in its own words.

    transformers logs it in a table and raises without it; it is in a local variable of a frame.
    """
    trace = error.__traceback__
    while trace is not None:
        info = trace.tb_frame.f_locals.get("loading_info")
        for text in getattr(info, "conversion_errors", {}).values():
            found = re.findall(r"^(\w*(?:Error|Exception): .+)$", text, re.MULTILINE)
            if found:
                return str(found[0])
        trace = trace.tb_next
    return None
