"""A model file in, a model that is ready to be compared out.

    spec ──► locate ──► engine (weights, quantiser, adapter) ──► simulate ──► compression manifest

Torch and transformers are imported when `load` runs, not with this module.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from evalharness.compat.silence import quiet
from evalharness.engines.base import Engine, LoadedModel, Parts, Say
from evalharness.engines.hub import Resolved
from evalharness.engines.out_of_memory import is_out_of_memory
from evalharness.engines.registry import engine_named, find_model
from evalharness.errors import EvalHarnessError, InputError, RunError
from evalharness.spec.model import ModelSpec

if TYPE_CHECKING:
    import torch

    from evalharness.engines.recipe import Made


def load(spec: ModelSpec, *, device: str | None = None, progress: Say | None = None) -> LoadedModel:
    """Load one side.

    Parameters
    ----------
    spec : the model file.
    device : where to, over ``spec.model.device``; ``auto`` is cuda, else mps, else cpu.
    progress : called with a short phrase before each step that takes time.

    Raises
    ------
    InputError : the weights, the tokenizer, the adapter or the recipe are wrong.
    RunError : the machine cannot hold or run the model.

    """
    say = _aloud(progress)
    found = find_model(spec)
    with quiet() as said:
        engine = engine_named(spec.model.engine)
        from evalharness.engines.compression_manifest import compression_manifest
        from evalharness.engines.recipe import simulate

        place = pick_device(device or spec.model.device)
        say(f"loading {spec.name}")
        parts = _loaded(engine, spec, found, place, say)
        parts.model.requires_grad_(False)
        parts.model.train(False)
        simulated: Mapping[str, Made] = {}
        if spec.simulate is not None:
            say(f"simulating {spec.simulate} of {spec.name}")
            simulated = simulate(parts.model, spec.simulate)
        say(f"measuring {spec.name}")
        named = _source(spec, found, parts)
        manifest = parts.manifest or compression_manifest(
            parts.model, parts.tokenizer, spec, parts.place, named, simulated
        )
    messages = dict.fromkeys((*parts.messages, *said.lines))
    return LoadedModel(
        spec.name,
        parts.model,
        parts.tokenizer,
        place,
        manifest,
        tuple(messages),
        simulated,
        parts.anomalies,
    )


# What the pair asks of a model, beside its forward pass, and what for.
_NEEDED = {
    "get_output_embeddings": "the head, which gives the logits",
    "get_input_embeddings": "the embedding",
    "base_model": "the model without its head",
    "config": "the configuration",
    "dtype": "the dtype that it computes in",
}


def _loaded(
    engine: Engine, spec: ModelSpec, found: Resolved, device: torch.device, say: Say
) -> Parts:
    """What the engine loads; an engine of another package may raise and return anything."""
    name = spec.model.engine
    try:
        parts = engine.load(spec, found, device, say)
    except EvalHarnessError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise RunError(f"{spec.name}: not enough memory on {device} for {found}") from error
        raise RunError(
            f"{spec.name}: the engine {name!r} could not load {found} "
            f"({type(error).__name__}: {error})"
        ) from error
    if not isinstance(parts, Parts):
        raise InputError(
            f"the engine {name!r} returned {type(parts).__name__}, not engines.base.Parts",
            key="model.engine",
        )
    lacks = [f"{n} ({what})" for n, what in _NEEDED.items() if not hasattr(parts.model, n)]
    if not lacks and not hasattr(parts.model.config, "get_text_config"):
        lacks = ["config.get_text_config (the configuration)"]
    if lacks:
        raise InputError(
            f"{spec.name} cannot be compared: the {type(parts.model).__name__} that the engine "
            f"{name!r} loads has no {', '.join(lacks)}",
            key="model.engine",
            remedy="Use an engine that loads a transformers PreTrainedModel, or what acts as one.",
        )
    return parts


def _source(spec: ModelSpec, found: Resolved, parts: Parts) -> str:
    """Where the weights came from, in the words of the model file; a hub id with its commit."""
    text = spec.model.path
    if found.kind == "hub" and parts.place is not None:
        text = f"{found.hub_id}@{parts.place.name}"
    return f"{text} + adapter {spec.adapter}" if spec.adapter else text


def _aloud(progress: Say | None) -> Say:
    """``progress`` with today's streams, which `quiet` takes away while libraries load."""
    out, err = sys.stdout, sys.stderr

    def say(text: str) -> None:
        if progress is not None:
            with redirect_stdout(out), redirect_stderr(err):
                progress(text)

    return say


def pick_device(text: str) -> torch.device:
    """``auto`` as cuda, else mps, else cpu; anything else must be usable here."""
    import torch

    if text == "auto":
        text = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        device = torch.device(text)
    except RuntimeError:
        raise InputError(
            f"must be auto, cpu, cuda, cuda:N or mps (got {text!r})", key="model.device"
        ) from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(
        device.type, int(torch.backends.mps.is_available()) if device.type == "mps" else 1
    )
    if (device.index or 0) >= count:
        raise InputError(
            f"no such device here: {text} ({count} of type {device.type})",
            key="model.device",
            remedy="Use auto, or cpu.",
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device
