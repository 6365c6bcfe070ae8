"""The reference of a comparison, and all that depends on it alone; its candidates share it."""

from __future__ import annotations

from dataclasses import replace

import torch

from evalharness.compat.accelerate import copy_block_by_block
from evalharness.data import documents
from evalharness.data.windows import blocks, cut
from evalharness.engines import loading
from evalharness.engines.computing import computing_dtype, stored_dtype
from evalharness.engines.hub import snapshot
from evalharness.engines.registry import find_model
from evalharness.errors import RunError
from evalharness.pair.faults import free_memory
from evalharness.pair.side import Side
from evalharness.pair.tasks.kept_prompts import KeptPrompts
from evalharness.pair.texts.hidden_cache import HiddenCache, default_root
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.probes.registry import watched_windows
from evalharness.progress import Progress
from evalharness.spec.model import ModelSpec
from evalharness.workflow.memory_plan import MemoryPlan
from evalharness.workflow.noise_floor import Floor, noise_floor
from evalharness.workflow.plan import Job

CUDA_BLOCK = 16  # a GPU is through a CPU's block of tokens before its records are written


class Reference:
    """The reference, and all that depends on it alone."""

    def __init__(self, job: Job, memory: MemoryPlan, progress: Progress) -> None:
        self.side = load_side(job.reference, job.device, memory, progress)
        tokenizer = self.side.loaded.tokenizer
        self.documents = documents.tokenize(job.texts, job.suite, tokenizer, self.side.vocab_size)
        bos = documents.bos_token(tokenizer)
        self.windows = cut(self.documents, job.suite, bos, watched_windows(job.suite))
        self.block_tokens = job.block_tokens
        if self.side.device.type == "cuda":
            self.block_tokens *= CUDA_BLOCK
        self.blocks = blocks(self.documents, self.windows, self.block_tokens)
        self.cache: HiddenCache | None = None
        # Hidden states of task prompts that other candidates meet too; `workflow.several` sets it.
        self.prompts: KeptPrompts | None = None
        self._noise_floor: Floor | None = None
        self._settings = job.suite.noise_floor
        self._batch_size = memory.batch_size
        if job.cache and self.side.split and not self.side.streams:
            self.cache = HiddenCache(self.side, default_root(), progress.tell)

    def noise_floor(self, progress: Progress) -> Floor:
        """Each text metric between the reference and itself; measured once."""
        if self._noise_floor is None:
            with progress.step("measuring the noise floor"):
                self._noise_floor = noise_floor(
                    self.side, self.documents, self.windows, self._batch_size, self._settings
                )
        return self._noise_floor

    @torch.inference_mode()
    def go_alone(self, batch_size: int, progress: Progress) -> None:
        """Put every hidden state into the cache, then make room for a candidate."""
        if self.side.released:
            return
        if not self.side.split or self.side.streams:
            raise RunError(
                f"{self.side.loaded.name} cannot be split into backbone and head, so the two "
                "models must fit on the device together. Use a larger one"
            )
        self.cache = self.cache or HiddenCache(self.side, default_root(), progress.tell)
        self.noise_floor(progress)
        work = TokenPass(
            self.side,
            self.side,
            self.documents,
            batch_size=batch_size,
            probe=None,
            cache=self.cache,
        )
        total = sum(len(s.ids) for s in self.windows)
        with progress.count("tokens through the reference", total, "tokens") as advance:
            for block in self.blocks:
                work.remember(block)
                advance(sum(len(s.ids) for s in block))
        self.side.release_backbone()
        free_memory(self.side.device)


def load_side(spec: ModelSpec, device: str | None, memory: MemoryPlan, progress: Progress) -> Side:
    """Load one side where the plan wants its weights."""
    with progress.step(f"loading {spec.name}") as say:
        if memory.mode != "offload":
            return Side(loading.load(spec, device=device, progress=say))
        place = loading.pick_device(device or spec.model.device)
        loaded = loading.load(_as_on(spec, place), device="cpu", progress=say)
        copy_block_by_block(loaded.model, place)
        return Side(replace(loaded, device=place))


def _as_on(spec: ModelSpec, device: torch.device) -> ModelSpec:
    """``spec`` in the dtype of ``device``, which computes, and not of the CPU that keeps it."""
    place = snapshot(find_model(spec), spec.model)
    dtype = computing_dtype(spec, place, device)
    if dtype == "auto":
        dtype = stored_dtype(place)
    return spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": dtype})})
