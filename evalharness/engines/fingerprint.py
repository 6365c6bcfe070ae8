"""SHA-256 of a model's weights and of its tokenizer: the same bytes, the same fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evalharness.compat.transformers import deciding_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

_CHUNK = 64 << 20  # bytes moved from the device and hashed at a time
_MOST_THREADS = 8  # more than memory can feed, and each holds a chunk


def weights_fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over (name, shape, dtype, SHA-256 of the bytes) of the state dict, by name.

    Tied tensors are hashed once. Tensors are hashed in threads: hashlib lets go of Python's lock.
    """
    lines: list[tuple[str, Tensor | None]] = []
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    for name, value in sorted(model.state_dict().items()):
        for part, tensor in plain_tensors(name, value):
            at = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
            tied = bool(tensor.numel()) and at in seen
            seen.add(at)
            lines.append((part, None if tied else tensor))
    held = [tensor for _, tensor in lines if tensor is not None]
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        # The largest first, so that none is left for one thread at the end.
        order = sorted(range(len(held)), key=lambda i: -held[i].nbytes)
        jobs = {i: pool.submit(_tensor_digest, held[i]) for i in order}
        digests = iter([jobs[i].result() for i in range(len(held))])
    whole = hashlib.sha256()
    for name, one in lines:
        said = "tied" if one is None else f"{list(one.shape)} {one.dtype} {next(digests)}"
        whole.update(f"{name} {said}\n".encode())
    return whole.hexdigest()


@torch.inference_mode()
def _tensor_digest(tensor: Tensor) -> str:
    digest = hashlib.sha256()
    for chunk in _bytes(tensor):
        digest.update(chunk)
    return digest.hexdigest()


def configuration_fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 of what decides a forward pass beside the weights; see `deciding_settings`."""
    text = json.dumps(deciding_settings(model), sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 of everything that decides how text becomes ids, padding and truncation excluded."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state: dict[str, Any] = json.loads(backend.to_str())
        state.pop("padding", None)
        state.pop("truncation", None)
        if getattr(tokenizer, "split_special_tokens", False):  # no part of the backend's state
            state["split_special_tokens"] = True
    else:
        state = {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
    special = {k: str(v) for k, v in tokenizer.special_tokens_map.items()}
    text = json.dumps([state, special], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_alike(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers are known to make the same ids of any text.

    Of one that is written in Python only its vocabulary is known.
    """
    fast = all(getattr(t, "backend_tokenizer", None) is not None for t in (one, other))
    return one is other or (fast and tokenizer_fingerprint(one) == tokenizer_fingerprint(other))


def plain_tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """``value`` as ordinary tensors: a tensor subclass (torchao) as the tensors inside it."""
    if not isinstance(value, Tensor):
        return
    if hasattr(value, "__tensor_flatten__"):
        inner, _ = value.__tensor_flatten__()
        for part in inner:
            yield from plain_tensors(f"{name}.{part}", getattr(value, part))
    else:
        yield name, value.detach()


def _bytes(tensor: Tensor) -> Iterator[memoryview]:
    flat = tensor.contiguous().reshape(-1)
    if not flat.numel():
        return
    raw = flat.view(torch.uint8)
    for start in range(0, len(raw), _CHUNK):
        yield raw[start : start + _CHUNK].cpu().numpy().data
