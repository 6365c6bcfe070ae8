"""What cannot be asked of a side that is behind a server, refused before anything is measured."""

from __future__ import annotations

from evalharness.engines.openai import NAME
from evalharness.errors import InputError
from evalharness.spec.model import ModelSpec
from evalharness.spec.suite import Suite


def check_servers(reference: ModelSpec, candidate: ModelSpec, suite: Suite) -> None:
    """Raise `InputError` where a server is to be the reference, or to do more than read texts."""
    if reference.model.engine == NAME:
        raise InputError(
            f"{reference.name}: a server gives some log-probabilities and not the vocabulary, and "
            "so can be a candidate only",
            key="model.engine",
            remedy="Give the reference in transformers, llama.cpp or onnx.",
        )
    if candidate.model.engine != NAME:
        return
    if suite.tasks:
        raise InputError(
            f"{candidate.name}: tasks are not measured through a server",
            key="tasks",
            remedy="Give a suite of texts alone.",
        )
    if suite.tokenizers != "same":
        raise InputError(
            f"{candidate.name}: a server is fed the reference's token ids",
            key="tokenizers",
            remedy="Set it to same, or leave it out.",
        )
