"""Whether an engine of its own process runs the model that its file holds, and what it adds.

A few windows go through the same weights, dequantised, in transformers as well: what the engine
shows beside those is its kernels' own error, and where that is more than kernels do, it runs
another model. The distance of a candidate from the reference is split by the same look.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from evalharness.data.documents import Document
from evalharness.data.windows import Window
from evalharness.engines import loading
from evalharness.engines.device_memory import free_bytes, gib, weight_bytes
from evalharness.engines.registry import find_model
from evalharness.errors import EvalHarnessError
from evalharness.pair.faults import free_memory
from evalharness.pair.remembered import Remembered
from evalharness.pair.side import Side
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.progress import Progress
from evalharness.spec.model import ModelSpec
from evalharness.spec.result import EngineControl

# Nats a token. Kernels that round activations to 8 bits were seen at .003, another batch shape at
# the same, a wrong rope base at .12.
MOST = 0.03
WINDOWS = 4
_CAUSES = (
    "another rope base or scaling, a soft cap that one of them leaves out, other attention windows"
)


def control(
    side: Side,
    spec: ModelSpec,
    reference: Side | None,
    documents: list[Document],
    windows: list[Window],
    progress: Progress,
) -> tuple[list[str], list[str]]:
    """Hold ``side`` against its own weights, and put what that shows into its manifest.

    Parameters
    ----------
    side : of an engine in a process of its own.
    spec : its model file.
    reference : what the distance is split from; None: ``side`` is the reference.
    documents, windows : of the suite.

    Returns
    -------
    anomalies : why the engine runs another model than the file holds.
    notes : why nothing could be said.

    """
    name = side.loaded.name
    sample = windows[:WINDOWS]
    if not sample:
        return [], [f"{name}: its engine is not held against its weights: the suite has no texts"]
    if find_model(spec).kind != "gguf":
        return [], [
            f"{name}: its engine is not held against its weights, which transformers does not read"
        ]
    weights = _dequantised(spec, progress)
    if isinstance(weights, str):
        return [], [f"{name}: its engine is not held against its weights: {weights}"]
    if weights.vocab_size != side.vocab_size:
        rows = f"{side.vocab_size:,} and {weights.vocab_size:,}"
        return [f"{name}: the engine and the file's own weights have {rows} logits"], []

    def distance(one: Side, other: Side) -> float:
        work = TokenPass(one, other, documents, batch_size=1, probe=None)
        return float(np.mean(work.run(sample)["tokens"]["kl"].to_numpy()))

    with progress.step(f"holding the engine of {name} against its weights"):
        kernels = distance(weights, side)
        split = EngineControl(windows=len(sample), kernels=kernels)
        if reference is not None and reference.vocab_size == side.vocab_size:
            split = split.model_copy(update={"weights": distance(reference, weights)})
    side.loaded = replace(
        side.loaded, manifest=side.loaded.manifest.model_copy(update={"control": split})
    )
    device = weights.device
    del weights
    free_memory(device)
    if kernels <= MOST:  # NaN is more
        return [], []
    return [
        f"{name}: the engine and the file's own weights, dequantised, are a KL of {kernels:.3g} "
        f"nats/token apart on {len(sample)} windows, where kernels alone stay below {MOST}: it "
        f"runs another model. Likely: {_CAUSES}"
    ], []


def _dequantised(spec: ModelSpec, progress: Progress) -> Side | str:
    """The weights of ``spec`` in transformers, in float32; or why there are none."""
    plain: dict[str, Any] = {"engine": "transformers", "python": None, "chunk": None, "options": {}}
    own = {"dtype": "float32", "device": "cpu", "attn": None}
    source = spec.model.model_copy(update=plain | own)
    twin = spec.model_copy(update={"model": source, "name": f"weights of {spec.name}"})
    try:
        place = find_model(twin).path
        needed = None if place is None else weight_bytes(place, "float32")
        with progress.step(f"loading the weights of {spec.name}") as say:
            device = loading.pick_device("cpu")
            free = free_bytes(device)
            if needed is not None and free is not None and needed > 0.9 * free:
                return f"dequantised they take {gib(needed)}, and {gib(free)} are free"
            return Remembered(Side(loading.load(twin, device="cpu", progress=say)))
    except EvalHarnessError as error:
        return f"transformers cannot load them ({error})"
