"""Both models over texts and tasks, block by block; each block is on disk before the next begins.

What depends on the reference alone (its weights, the windows, the noise floor, the cache of its
hidden states) is a `Reference`, which any number of candidates share.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from evalharness.data import documents, windows
from evalharness.data.calibration import calibration_slots
from evalharness.engines import load as loading
from evalharness.engines.load_errors import is_out_of_memory
from evalharness.errors import RunError
from evalharness.gates import check_layers, refuse_noise
from evalharness.pair.compatible import check_pair
from evalharness.pair.faults import OutOfMemoryError, free_memory
from evalharness.pair.matching import match
from evalharness.pair.side import Side
from evalharness.pair.texts.hidden_cache import HiddenCache, default_root
from evalharness.pair.texts.statistics import worth_compiling
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.pair.texts.two_tokenizers import measure_separately
from evalharness.probes import activations as inputs
from evalharness.probes import latency
from evalharness.probes.cka import similarity
from evalharness.probes.layers import LayerProbe
from evalharness.probes.weights import weight_errors
from evalharness.progress import Progress
from evalharness.run import records
from evalharness.run.directory import Run
from evalharness.run.environment import environment, peak_memory
from evalharness.spec.model import ModelSpec
from evalharness.spec.slices import Doc, subsets
from evalharness.version import __version__
from evalharness.workflow.interrupt import finishing_blocks
from evalharness.workflow.memory_plan import MemoryPlan, plan_memory
from evalharness.workflow.noise_floor import Floor, noise_floor
from evalharness.workflow.stopping import decided, look, look_shares

if TYPE_CHECKING:
    from evalharness.pair.tasks.run import TaskRun
    from evalharness.workflow.compare import Plan

CUDA_BLOCK = 16  # a GPU is through a CPU's block of tokens before its records are written
TUNED = 5  # a confidence sequence is narrowest at this part of the documents


class Reference:
    """The reference, and all that depends on it alone."""

    def __init__(self, job: Plan, memory: MemoryPlan, progress: Progress) -> None:
        self.side = load_side(job.reference, job.device, memory, progress)
        tokenizer = self.side.loaded.tokenizer
        self.documents = documents.tokenize(job.texts, job.suite, tokenizer, self.side.vocab_size)
        bos = documents.bos_token(tokenizer)
        self.slots = windows.cut(self.documents, job.suite, bos)
        self.block_tokens = job.block_tokens
        if self.side.device.type == "cuda":
            self.block_tokens *= CUDA_BLOCK
        self.blocks = windows.blocks(self.documents, self.slots, self.block_tokens)
        self.cache: HiddenCache | None = None
        # Hidden states of task prompts, where other candidates will meet the same; see `many`.
        self.prompts: dict[bytes, torch.Tensor] | None = None
        self._noise_floor: Floor | None = None
        self._settings = job.suite.noise_floor
        self._batch_size = memory.batch_size
        if job.cache and self.side.split:
            self.cache = HiddenCache(self.side, default_root(), progress.tell)

    def noise_floor(self, progress: Progress) -> Floor:
        """Each text metric between the reference and itself; measured once."""
        if self._noise_floor is None:
            with progress.step("measuring the noise floor"):
                self._noise_floor = noise_floor(
                    self.side, self.documents, self.slots, self._batch_size, self._settings
                )
        return self._noise_floor

    @torch.inference_mode()
    def go_alone(self, batch_size: int, progress: Progress) -> None:
        """Put every hidden state into the cache, then make room for a candidate."""
        if self.side.released:
            return
        if not self.side.split:
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
        total = sum(len(s.ids) for s in self.slots)
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
        from accelerate import cpu_offload

        loaded = loading.load(spec, device="cpu", progress=say)
        place = loading.pick_device(device or spec.model.device)
        cpu_offload(loaded.model, place)
        return Side(replace(loaded, device=place))


def measure(job: Plan, progress: Progress, reference: Reference | None = None) -> Run:
    """Load what is not loaded and record every block that is not recorded yet."""
    with warnings.catch_warnings():
        # bitsandbytes, say, warns at every forward pass of what it does by design.
        warnings.simplefilter("ignore")
        return _measure(job, progress, reference)


def _measure(job: Plan, progress: Progress, reference: Reference | None) -> Run:
    started = time.perf_counter()
    memory = job.memory or plan_memory(job.reference, job.candidate, job.suite, job.device)
    for line in memory.lines:
        progress.detail(line)
    reference = reference or Reference(job, memory, progress)
    # Before the candidate takes its place, and before anything is written: a limit that rounding
    # alone could break is wrong input.
    floor = _floor(job, reference, progress)
    if memory.mode == "apart":
        reference.go_alone(memory.batch_size, progress)
    candidate = load_side(job.candidate, job.device, memory, progress)
    noted = check_pair(reference.side, candidate, job.suite)
    loaded_at = time.perf_counter()

    probe = None
    if job.suite.tokenizers == "same" and "layers" in job.suite.probes:
        layers = job.suite.layers
        probe = LayerProbe(reference.side, candidate, layers.linears, layers.errors)
        found = probe.matching
        alone = (*found.unmatched_reference, *found.unmatched_candidate)
        names = [pair.name for pair in probe.pairs] + [text.partition(" (")[0] for text in alone]
        check_layers(job.policy, names)
    run = _begin(job, reference, candidate, probe, floor, noted)

    def say(text: str) -> None:
        run.log("pass", text)
        progress.tell(text)

    try:
        for line in memory.lines:
            run.log("memory", line)
        if reference.cache is not None:
            reference.cache.say = say
        with finishing_blocks() as interrupted:
            _texts(job, memory, reference, candidate, probe, run, progress, say, interrupted)
            _inside(job, reference, candidate, probe, run, progress)
            if "latency" in job.suite.probes:
                _latency(job, reference, candidate, run, progress)
            passed_at = time.perf_counter()
            if job.tasks is not None:
                _tasks(job, reference, candidate, run, progress, say, interrupted)
        run.update(
            seconds={
                "loading": loaded_at - started,
                "tokens": passed_at - loaded_at,
                "tasks": time.perf_counter() - passed_at,
            },
            peak_memory=peak_memory(),
        )
    except BaseException:
        run.close()
        raise
    return run


def _floor(job: Plan, reference: Reference, progress: Progress) -> Floor:
    """The noise floor, held against the policy's limits; a resumed run keeps the one it has."""
    floor = Floor({})
    if job.resume:
        floor = Floor(Run.open(job.out).manifest.get("noise_floor") or {})
    elif job.suite.tokenizers == "same" and reference.slots:
        floor = reference.noise_floor(progress)
    refuse_noise(job.policy, floor.values)
    return floor


def _begin(
    job: Plan,
    reference: Reference,
    candidate: Side,
    probe: LayerProbe | None,
    floor: Floor,
    noted: list[str],
) -> Run:
    """Create the run, or take up the one that is there."""
    docs, suite = reference.documents, job.suite
    sides: dict[str, dict[str, Any]] = {
        name: {
            "manifest": side.loaded.manifest.model_dump(),
            "simulated": spec.simulate is not None,
            "split": side.split,
        }
        for name, side, spec in (
            ("reference", reference.side, job.reference),
            ("candidate", candidate, job.candidate),
        )
    }
    inputs = {
        "reference": job.reference.model_dump(mode="json", by_alias=True),
        "candidate": job.candidate.model_dump(mode="json", by_alias=True),
        "suite": suite.model_dump(mode="json"),
        "token_stream": documents.fingerprint(docs),
        "block_tokens": reference.block_tokens,
        "weights": [s["manifest"]["fingerprint"] for s in sides.values()],
        "tokenizers": [s["manifest"]["tokenizer_fingerprint"] for s in sides.values()],
        "stopping": job.stopping,
    }
    identity = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    stop_early = job.stopping
    if stop_early is not None and stop_early["rule"] == "sequence":
        # The sequence is narrowest here; fixed before the first document is seen.
        stop_early = {**stop_early, "tuned_for": max(30, len(docs) // TUNED)}
    short = len(job.texts) - len(docs)
    loaded = (reference.side.loaded, candidate.loaded)
    manifest = {
        **inputs,
        "identity": identity,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "evalharness": __version__,
        "command": job.command,
        "sides": sides,
        "slices": [
            {"name": s.name, "where": dict(s.where)}
            for s in subsets(
                suite.model_dump()["slices"],
                [Doc(d.corpus, d.id, d.attributes, len(d.tokens)) for d in docs],
            )
        ],
        "noise_floor": floor.values,
        "noise_floor_ways": floor.ways,
        "matching": probe.matching.model_dump() if probe else None,
        "blocks": len(reference.blocks),
        "stop_early": stop_early,
        "environment": environment(reference.side.device, candidate.device),
        "warnings": [
            *job.warnings,
            *noted,
            *floor.notes,
            *(probe.matching.notes if probe else []),
            *([f"{short} documents were too short to score and left out"] if short else []),
            *(f"{x.name}: {m}" for x in loaded for m in x.messages),
        ],
    }
    run = Run.resume(job.out, identity) if job.resume else Run.create(job.out, manifest)
    for side in loaded:
        for message in side.messages:
            run.log("loader", message, model=side.name)
    return run


def _texts(
    job: Plan,
    memory: MemoryPlan,
    reference: Reference,
    candidate: Side,
    probe: LayerProbe | None,
    run: Run,
    progress: Progress,
    say: Callable[[str], None],
    interrupted: Callable[[], None],
) -> None:
    """Record every block of texts."""
    docs, blocks, done = reference.documents, reference.blocks, run.done()
    total = sum(len(s.ids) for s in reference.slots)
    positions = sum(s.scored for s in reference.slots)
    rule = job.stopping
    shares = look_shares(blocks, rule["looks"]) if rule and "looks" in rule else {}
    with progress.count("tokens through both models", total, "tokens") as advance:
        work = TokenPass(
            reference.side,
            candidate,
            docs,
            batch_size=memory.batch_size,
            probe=probe,
            cache=reference.cache,
            chunk=memory.chunk,
            progress=advance,
            say=say,
            compiled=worth_compiling(positions, candidate.vocab_size, candidate.device),
        )
        for number, block in enumerate(blocks):
            if f"{number:05d}" in done:
                advance(sum(len(s.ids) for s in block))
            elif job.suite.tokenizers == "same":
                run.write_block(f"{number:05d}", work.measure(block))
                interrupted()
            else:
                numbers = {s.document for s in block}
                own = [d for d in docs if d.number in numbers]
                run.write_block(
                    f"{number:05d}",
                    measure_separately(reference.side, candidate, own, job.texts, job.suite),
                )
                advance(sum(len(s.ids) for s in block))
                interrupted()
            last = number + 1 == len(blocks) or f"{number + 1:05d}" in done
            if number in shares:
                look(run, shares[number])
            looked = rule is not None and (number in shares or rule["rule"] == "sequence")
            if looked and not last and decided(run, job.policy):
                seen = max(s.document for s in block) + 1
                said = (
                    f"stopped early, every blocking gate on text being decided: {seen} of "
                    f"{len(docs)} documents were measured"
                )
                run.update(warnings=list(dict.fromkeys([*run.manifest["warnings"], said])))
                break
    if probe is not None:
        run.update(matching=_with_unmeasured(run, probe))


def _inside(
    job: Plan,
    reference: Reference,
    candidate: Side,
    probe: LayerProbe | None,
    run: Run,
    progress: Progress,
) -> None:
    """Record weights and activations, and CKA where blocks have no counterpart."""
    docs, suite, done = reference.slots, job.suite, run.done()
    if suite.tokenizers == "different" or not docs:
        return
    if "activations" in suite.probes and "activations" not in done:
        chosen = inputs.sample(docs, suite.activations.windows)
        text = calibration_slots(
            job.calibration,
            job.candidate,
            suite,
            reference.side.loaded.tokenizer,
            reference.side.vocab_size,
        )
        text = inputs.sample(text, suite.activations.windows)
        pairs, matching = match(reference.side.model, candidate.model)
        total = sum(len(s.ids) for s in (*chosen, *chosen, *text))
        with progress.count("tokens for activations", total, "tokens") as advance:
            errors, columns = weight_errors(reference.side, candidate, pairs)
            found = inputs.activations(
                reference.side, candidate, pairs, chosen, columns, text, advance
            )
        if run.manifest.get("matching") is None:
            run.update(matching=matching.model_dump())
        run.write_block("activations", {"weights": errors, **found})
    if probe is not None and not probe.blocks and "cka" not in done:
        chosen = inputs.sample(docs, suite.layers.windows)
        with progress.count("tokens for CKA", sum(len(s.ids) for s in chosen), "tokens") as go:
            run.write_block("cka", {"cka": similarity(reference.side, candidate, chosen, go)})


def _latency(
    job: Plan, reference: Reference, candidate: Side, run: Run, progress: Progress
) -> None:
    """Record decode seconds, and on CUDA each side's peak."""
    slots = reference.slots
    if "latency" in run.done() or not slots:
        return
    with progress.step("measuring decode latency"):
        timings = latency.decode_latency(reference.side, candidate, slots)
        batch = job.suite.batch_size
        peaks = [latency.peak_memory(s, slots[0], batch) for s in (reference.side, candidate)]
    run.write_block("latency", {"timings": timings})
    if None not in peaks:
        run.update(peak_bytes=dict(zip(("reference", "candidate"), peaks, strict=True)))


def _tasks(
    job: Plan,
    reference: Reference,
    candidate: Side,
    run: Run,
    progress: Progress,
    say: Callable[[str], None],
    interrupted: Callable[[], None],
) -> None:
    """Record every task, with half the batch where memory runs out."""
    from evalharness.pair.tasks.run import run_tasks

    assert job.tasks is not None
    batch_size = job.suite.batch_size
    with progress.count("tasks on both models", None, "requests") as advance:
        while True:
            done = {n.removeprefix("task-") for n in run.done() if n.startswith("task-")}
            try:
                for task in run_tasks(
                    reference.side.loaded,
                    candidate.loaded,
                    job.tasks,
                    batch_size=batch_size,
                    seed=job.suite.seed,
                    progress=advance.report,
                    done=frozenset(done),
                    kept=reference.prompts,
                ):
                    if task.notes:
                        known = run.manifest["warnings"]
                        run.update(warnings=list(dict.fromkeys([*known, *task.notes])))
                    run.write_block(f"task-{task.task}", task_tables(task))
                    interrupted()
                return
            except (RuntimeError, MemoryError, RunError) as error:
                if not is_out_of_memory(error.__cause__ or error):
                    raise
                said = str(error)
                if batch_size == 1:
                    raise OutOfMemoryError(
                        f"out of memory with one task request at a time: {said}"
                    ) from None
            batch_size //= 2
            say(f"out of memory: going on with {batch_size} task requests at a time")
            free_memory(reference.side.device)
            free_memory(candidate.device)


def _with_unmeasured(run: Run, probe: LayerProbe) -> dict[str, Any]:
    """The match report with the modules of which no record was made."""
    seen = set(run.table("layers", ["layer"])["layer"].to_pylist())
    missing = [f"{p.name} ({p.type})" for p in probe.pairs if p.name not in seen]
    return probe.matching.model_copy(update={"not_measured": missing}).model_dump()


def task_tables(task: TaskRun) -> dict[str, pa.Table]:
    """The records of one lm-eval task."""
    return {
        "items": pa.Table.from_pandas(task.frame, schema=records.ITEMS, preserve_index=False),
        "item_tokens": pa.Table.from_pandas(
            task.positions, schema=records.ITEM_TOKENS, preserve_index=False
        ),
        "tasks": pa.Table.from_pylist(
            [{k: getattr(r, k) for k in records.TASKS.names} for r in task.results],
            schema=records.TASKS,
        ),
        "anomalies": pa.Table.from_pylist(
            [{"kind": "task", "message": m} for m in task.anomalies], schema=records.ANOMALIES
        ),
    }
