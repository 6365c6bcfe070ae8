"""Weights that several modules share: whoever writes into one must not write into the others.

An output head tied to the embedding is the usual case. Before a weight is changed (simulation,
merging an adapter) its module gets one of its own, and before anything is measured the head is held
against the files: a head of its own there that was tied on loading is not the model in the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evalharness.compat import gguf
from evalharness.compat.transformers import untie_head
from evalharness.engines.file_headers import gguf_tensors, weight_files

_GGUF_HEAD, _GGUF_EMBEDDING = "output.weight", "token_embd.weight"
_ROWS = 4096  # compared at a time


def owners_of_weights(model: nn.Module) -> dict[int, set[str]]:
    """The modules that hold each weight, by the address of its data."""
    owners: dict[int, set[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if weight is not None:
            owners.setdefault(weight.data_ptr(), set()).add(name)
    return owners


def give_own_weights(model: nn.Module, names: Mapping[str, nn.Module], *, each: bool) -> None:
    """Give each module of ``names`` that shares its weight with another a weight of its own.

    ``each``: also where all that share it are among ``names``, because every one will be written
    to; otherwise those keep sharing.
    """
    owners = owners_of_weights(model)
    for name, module in names.items():
        weight = module.weight
        assert isinstance(weight, Tensor)
        others = owners.get(weight.data_ptr(), set()) - ({name} if each else names.keys())
        if others:
            module.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            owners[weight.data_ptr()].discard(name)
    note_untied(model)


def note_untied(model: Any) -> None:
    """Say in the configuration that the head has a weight of its own, so that nothing ties it."""
    head = _head(model)
    if head is not None and not _is_tied(model, head):
        name = next(n for n, m in model.named_modules() if m is head)
        untie_head(model, name)


def replaced_head(model: Any, place: Path) -> str | None:
    """Why the head is not that of the files at ``place``: they hold one, and it was tied over.

    Safetensors and GGUF files are looked into, and no others.
    """
    head = _head(model)
    if head is None or not _is_tied(model, head):
        return None
    if place.suffix == ".gguf":
        if _head_is_embedding(place) is not False:
            return None
        return (
            f"{_GGUF_HEAD} in {place} was replaced by the embedding on loading: what was measured "
            "is not the model in the file"
        )
    name = next(n for n, m in model.named_modules() if m is head) + ".weight"
    held = _same_as_file(head.weight, name, place)
    if held is not False:
        return None
    return (
        f"{name} in {place} was replaced by the embedding on loading, as config.json says "
        "tie_word_embeddings: what was measured is not the model in the files. Set "
        "tie_word_embeddings: false in config.json, or remove that tensor"
    )


def _head_is_embedding(file: Path) -> bool | None:
    """Whether a GGUF file holds the same bytes as head and as embedding; None: it has no head."""
    held = {t.name: t for t in gguf_tensors(file, "model.path")}
    head, embedding = held.get(_GGUF_HEAD), held.get(_GGUF_EMBEDDING)
    if head is None or embedding is None:
        return None if head is None else False
    alike = (head.type, head.shape) == (embedding.type, embedding.shape)
    return alike and gguf.same_data(file, _GGUF_HEAD, _GGUF_EMBEDDING)


def _head(model: Any) -> Any:
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if callable(get_head) else None
    return head if isinstance(getattr(head, "weight", None), Tensor) else None


def _is_tied(model: Any, head: Any) -> bool:
    embedding = getattr(model.get_input_embeddings(), "weight", None)
    return isinstance(embedding, Tensor) and embedding.data_ptr() == head.weight.data_ptr()


def _same_as_file(weight: Tensor, name: str, place: Path) -> bool | None:
    """Whether ``weight`` is the tensor ``name`` of the files; None: they have none."""
    from safetensors import safe_open

    with ExitStack() as stack:
        for path in weight_files(place):
            file = stack.enter_context(safe_open(str(path), "pt"))
            if name in file.keys():  # noqa: SIM118 (it is no dict)
                break
        else:
            return None
        rows = file.get_slice(name)
        if list(rows.get_shape()) != list(weight.shape):
            return False
        return all(
            torch.equal(
                rows[at : at + _ROWS].to(weight.dtype), weight.detach()[at : at + _ROWS].cpu()
            )
            for at in range(0, len(weight), _ROWS)
        )
