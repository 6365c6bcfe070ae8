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
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evalharness.data import documents
from evalharness.data.calibration import calibration_windows
from evalharness.engines.load_errors import is_out_of_memory
from evalharness.errors import RunError
from evalharness.gates import check_layers, refuse_noise
from evalharness.pair.compatible import check_pair
from evalharness.pair.faults import OutOfMemoryError, free_memory
from evalharness.pair.matching import match
from evalharness.pair.side import Side
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
from evalharness.spec.slices import SlicedDocument, subsets
from evalharness.version import __version__
from evalharness.workflow.interrupt import finishing_blocks
from evalharness.workflow.memory_plan import MemoryPlan, plan_memory
from evalharness.workflow.noise_floor import Floor
from evalharness.workflow.plan import Job
from evalharness.workflow.reference import Reference, load_side
from evalharness.workflow.stopping import decided, look, look_shares

if TYPE_CHECKING:
    from evalharness.pair.tasks.run import TaskRun

TUNED = 5  # a confidence sequence is narrowest at this part of the documents


def measure_pair(job: Job, progress: Progress, reference: Reference | None = None) -> Run:
    """Load what is not loaded and record every block that is not recorded yet."""
    with warnings.catch_warnings():
        # bitsandbytes, say, warns at every forward pass of what it does by design.
        warnings.simplefilter("ignore")
        return _measured(job, progress, reference)


def _measured(job: Job, progress: Progress, reference: Reference | None) -> Run:
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


def _floor(job: Job, reference: Reference, progress: Progress) -> Floor:
    """The noise floor, held against the policy's limits; a resumed run keeps the one it has."""
    floor = Floor({})
    if job.resume:
        floor = Floor(Run.open(job.out).manifest.get("noise_floor") or {})
    elif job.suite.tokenizers == "same" and reference.windows:
        floor = reference.noise_floor(progress)
    refuse_noise(job.policy, floor.values)
    return floor


def _begin(
    job: Job,
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
                [SlicedDocument(d.corpus, d.id, d.attributes, len(d.tokens)) for d in docs],
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
    job: Job,
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
    total = sum(len(s.ids) for s in reference.windows)
    positions = sum(s.scored for s in reference.windows)
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
                run.write_block(f"{number:05d}", work.run(block))
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
    job: Job,
    reference: Reference,
    candidate: Side,
    probe: LayerProbe | None,
    run: Run,
    progress: Progress,
) -> None:
    """Record weights and activations, and CKA where blocks have no counterpart."""
    docs, suite, done = reference.windows, job.suite, run.done()
    if suite.tokenizers == "different" or not docs:
        return
    if "activations" in suite.probes and "activations" not in done:
        chosen = inputs.sample(docs, suite.activations.windows)
        text = calibration_windows(
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


def _latency(job: Job, reference: Reference, candidate: Side, run: Run, progress: Progress) -> None:
    """Record decode seconds, and on CUDA each side's peak."""
    windows = reference.windows
    if "latency" in run.done() or not windows:
        return
    with progress.step("measuring decode latency"):
        timings = latency.decode_latency(reference.side, candidate, windows)
        batch = job.suite.batch_size
        peaks = [latency.peak_memory(s, windows[0], batch) for s in (reference.side, candidate)]
    run.write_block("latency", {"timings": timings})
    if None not in peaks:
        run.update(peak_bytes=dict(zip(("reference", "candidate"), peaks, strict=True)))


def _tasks(
    job: Job,
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
