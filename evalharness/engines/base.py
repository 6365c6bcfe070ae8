"""What an engine is, and what loading one side of a pair gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from evalharness.engines.hub import Resolved
from evalharness.spec.model import ModelSpec
from evalharness.spec.result import CompressionManifest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from evalharness.engines.recipe import Made

Say = Callable[[str], None]


@dataclass(frozen=True)
class Parts:
    """What an engine returns: a model on its device, its tokenizer, and where they came from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    place: Path | None = None  # of the weights; None: they are no file
    messages: tuple[str, ...] = ()
    anomalies: tuple[str, ...] = ()  # why what was loaded is not what the files hold
    manifest: CompressionManifest | None = None  # where the model has no tensors to measure


@dataclass(frozen=True)
class LoadedModel:
    """One side of a pair. ``model`` is in eval mode and needs no gradients."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    manifest: CompressionManifest
    messages: tuple[str, ...] = ()
    simulated: Mapping[str, Made] = field(default_factory=dict)  # what `simulate` did
    anomalies: tuple[str, ...] = ()  # see `Parts`


@runtime_checkable
class Engine(Protocol):
    """What can run a model: a module, or any object, with a name and `load`.

    One whose models are not where those of transformers are may also have ``locate``: it takes the
    `ModelSpec`, before anything is loaded, and returns what `load` will be given as ``found``, such
    as ``Resolved("engine", name="llama on port 8080")``. Without it ``model.path`` must be a hub
    id, a directory with a configuration and weights, or a GGUF file.
    """

    NAME: str

    def load(self, spec: ModelSpec, found: Resolved, device: torch.device, progress: Say) -> Parts:
        """Load the weights of ``spec``, found at ``found``, onto ``device``."""
