"""What a pass will need, estimated from configurations and file headers before anything is loaded.

    weights       both models', from the headers
    activations   of one batch in one decoder layer: 8 C + 3 F numbers a token
    logits        of one chunk: both sides, and float32 temporaries

The batch and then the chunk are halved until that fits. Two models that do not fit together run one
after the other through the cache of hidden states, which is all that text metrics need of a
reference; probes and tasks need both at once, and then weights stay in main memory and are copied
to the GPU block by block (accelerate's offload). The estimate is rough: what is still wrong shows
as an out-of-memory error, which halves further (`pair.texts.token_pass`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evalharness.engines.computing import computing_dtype, remark
from evalharness.engines.device_memory import free_bytes, gib, weight_bytes
from evalharness.engines.file_headers import gguf_tensors
from evalharness.engines.hub import snapshot
from evalharness.engines.loading import pick_device
from evalharness.engines.locate import read_json
from evalharness.engines.registry import find_model, runs_apart
from evalharness.errors import RunError, plural
from evalharness.probes.registry import probes_of
from evalharness.spec.model import ModelSpec
from evalharness.spec.suite import Suite

if TYPE_CHECKING:
    import torch

Mode = Literal["together", "in_turn", "offload"]

SPARE = 0.9  # share of the free memory that is planned with
LEAST_CHUNK = 32
# Roughly what is left of dense 16-bit weights, embeddings included.
_QUANTISED = {"load_in_4bit": 0.35, "load_in_8bit": 0.6}


@dataclass(frozen=True)
class Size:
    """One model; None and 0: its files do not say."""

    name: str
    device: torch.device
    weights: int | None  # bytes once loaded
    hidden: int = 0
    intermediate: int = 0
    vocabulary: int = 0
    element: int = 4  # bytes of a number

    def layer(self, tokens: int) -> int:
        """Bytes of the activations of ``tokens`` tokens in one decoder layer."""
        return tokens * self.element * (8 * self.hidden + 3 * self.intermediate)


@dataclass(frozen=True)
class MemoryPlan:
    """How the pass is to be run; ``lines`` say why."""

    mode: Mode
    batch_size: int
    chunk: int
    lines: tuple[str, ...]


def plan_memory(
    reference: ModelSpec,
    candidate: ModelSpec,
    suite: Suite,
    device: str | None = None,
    reserved: int = 0,
) -> MemoryPlan:
    """Plan a pass; raise `RunError` where no way of running it fits.

    ``reserved`` : bytes of main memory that something else will take.
    """
    from evalharness.pair.side import default_chunk

    sides = (size(reference, device), size(candidate, device))
    vocabulary, element = max(s.vocabulary for s in sides), max(s.element for s in sides)
    batch, chunk = suite.batch_size, default_chunk(sides[1].device, vocabulary, element)
    lines = [f"{s.name}: weights {gib(s.weights)} on {s.device}" for s in sides]
    mode: Mode = "together"
    for place in dict.fromkeys(s.device for s in sides):
        free = free_bytes(place)
        here = [s for s in sides if s.device == place]
        if free is None or any(s.weights is None for s in here):
            lines.append(f"{place}: free memory or weights unknown; sizes are the suite's")
            continue
        room = int(SPARE * free) - (reserved if place.type == "cpu" else 0)
        needs = [s.weights or 0 for s in here]
        lines.append(f"{place}: {gib(free)} free, planned with {gib(room)}")
        if sum(needs) + _work(sides, suite, 1, LEAST_CHUNK) > room:
            mode = _instead(here, suite, room)
            needs = [max(needs)] if mode == "in_turn" else [0]
        while batch > 1 and sum(needs) + _work(sides, suite, batch, LEAST_CHUNK) > room:
            batch //= 2
        while chunk > LEAST_CHUNK and sum(needs) + _work(sides, suite, batch, chunk) > room:
            chunk //= 2
        lines.append(f"{place}: a batch needs {gib(_work(sides, suite, batch, chunk))}")
    lines.append(
        f"{_WORDS[mode]}; {plural(batch, 'window')} at a time, logits of {chunk} positions"
    )
    if batch < suite.batch_size:
        lines.append(f"batch_size {suite.batch_size} of the suite does not fit")
    return MemoryPlan(mode, batch, chunk, tuple(lines))


_WORDS = {
    "together": "both models at once",
    "in_turn": "the models do not fit together: one after the other, through the cache",
    "offload": "the models do not fit together: weights stay in main memory and are copied to "
    "the device block by block, which is slow",
}


def _instead(here: list[Size], suite: Suite, room: int) -> Mode:
    """What to do when the weights on one device are too much for it."""
    import torch

    place = here[0].device
    total = sum(s.weights or 0 for s in here)
    largest = max(s.weights or 0 for s in here)
    both = bool(suite.probes or suite.tasks) or suite.tokenizers == "different"
    if len(here) == 2 and largest <= room and not both:
        return "in_turn"
    main = free_bytes(torch.device("cpu"))
    names = " and ".join(s.name for s in here)
    if place.type == "cuda" and (main is None or total <= SPARE * main):
        reading = [probe.name for probe in probes_of(suite) if probe.reads_weights]
        if reading:
            raise RunError(
                f"{names} need {gib(total)} for their weights, {gib(room)} is free on {place}; "
                "weights that are copied to it block by block are not there for the probe "
                f"`{reading[0]}` to read. Take it out of the suite's probes, or use a smaller "
                "dtype or a larger device"
            )
        return "offload"
    hint = (
        "A suite of texts alone, without tasks and probes, runs them one after the other; or use"
        if len(here) == 2 and largest <= room
        else "Use"
    )
    raise RunError(
        f"{names} need {gib(total)} for their weights and {gib(room)} is free on {place}. "
        f"{hint} a smaller dtype, another device, or a machine with more memory"
    )


def _work(sides: tuple[Size, Size], suite: Suite, batch: int, chunk: int) -> int:
    """Bytes of a batch on its way: one layer's activations, hidden states and a chunk's logits."""
    tokens = batch * suite.window.tokens
    layer = max(s.layer(tokens) for s in sides)
    hidden = sum(2 * tokens * s.hidden * s.element for s in sides)
    # A probe may hold the reference's block while the candidate's runs.
    probed = layer if any(probe.holds_activations for probe in probes_of(suite)) else 0
    vocabulary = max(s.vocabulary for s in sides)
    return layer + probed + hidden + chunk * vocabulary * (sum(s.element for s in sides) + 8)


def size(spec: ModelSpec, device: str | None = None) -> Size:
    """Read what the files of ``spec`` say; a hub model is fetched first, as loading would."""
    found = find_model(spec)
    where = pick_device(device or spec.model.device)
    if found.kind == "engine":
        return Size(spec.name, where, None)
    place = snapshot(found, spec.model)
    if runs_apart(spec):  # as the file is
        return Size(spec.name, pick_device("cpu"), place.stat().st_size, *_of_gguf(place), 4)
    dtype = computing_dtype(spec, place, where)
    weights = weight_bytes(place, dtype)
    element = 2 if dtype in ("bfloat16", "float16") else 4
    if weights is not None and spec.quantization is not None:
        shares = [v for k, v in _QUANTISED.items() if spec.quantization.get(k)]
        weights = int(weights * (shares[0] if shares else 1.0))
    if place.suffix == ".gguf":
        return Size(spec.name, where, weights, *_of_gguf(place), element)
    config = read_json(place / "config.json", "model.path")
    config = config | (config.get("text_config") or {})
    if dtype == "auto" and "16" in str(config.get("dtype") or config.get("torch_dtype")):
        element = 2
    hidden = _first(config, "hidden_size", "n_embd", "d_model")
    wide = _first(config, "intermediate_size", "ffn_dim", "n_inner") or 4 * hidden
    return Size(spec.name, where, weights, hidden, wide, _first(config, "vocab_size"), element)


def computing_notes(device: str | None, *specs: ModelSpec) -> list[str]:
    """What a reader should know of the dtypes that ``specs`` are computed in, each said once."""
    named: dict[str, list[str]] = {}
    for spec in specs:
        found = find_model(spec)
        if found.kind == "engine" or runs_apart(spec):
            continue
        where = pick_device(device or spec.model.device)
        if said := remark(spec, snapshot(found, spec.model), where):
            named.setdefault(said, []).append(spec.name)
    return [f"{' and '.join(dict.fromkeys(names))}: {said}" for said, names in named.items()]


def _of_gguf(place: Path) -> tuple[int, int, int]:
    """Hidden size, intermediate size and vocabulary of a GGUF file, from its tensor table."""
    shapes = {t.name: t.shape for t in gguf_tensors(place, "model.path")}
    vocabulary, hidden = shapes.get("token_embd.weight", (0, 0))[:2]
    wide = shapes.get("blk.0.ffn_up.weight", (4 * hidden,))[0]
    return hidden, wide, vocabulary


def _first(config: dict[str, Any], *names: str) -> int:
    """The first of ``names`` that is a number; some models give one a layer."""
    return next((config[n] for n in names if type(config.get(n)) is int and config[n]), 0)
