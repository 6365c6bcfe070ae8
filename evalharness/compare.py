"""One comparison, from four files to a sealed run directory.

plan      every input is read and checked; no weights are loaded, nothing is written
measure   both models, block by block; each block's records are on disk before the next
finish    records → estimates → gates → result.json, report.html, summary.md, junit.xml
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import platform
import re
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evalharness import __version__, assets, records
from evalharness.data.documents import Text, read_texts
from evalharness.errors import InputError, Interrupted
from evalharness.early import decided, unwatched
from evalharness.finish import finish
from evalharness.gates import Sizes, check_resolvable, load_policy
from evalharness.models.resolve import resolve_spec
from evalharness.progress import Progress
from evalharness.run import Run, check_new
from evalharness.spec.model import ModelSpec, load_model_spec
from evalharness.spec.result import Result
from evalharness.spec.suite import Suite, load_suite

if TYPE_CHECKING:
    from evalharness.data.items import PreparedTasks
    from evalharness.spec.policy import Policy
    from evalharness.pair.tasks import TaskRun
    from evalharness.probes.layers import LayerProbe

BLOCK_TOKENS = 8192  # about a minute's work on two cores: what a killed run loses at most


@dataclass(frozen=True)
class Plan:
    """Validated inputs, with every default explicit."""

    reference: ModelSpec
    candidate: ModelSpec
    suite: Suite
    policy: Policy
    texts: list[Text]
    tasks: PreparedTasks | None
    out: Path
    device: str | None = None
    resume: bool = False
    stop_early: bool = False
    command: str = ""
    warnings: list[str] = field(default_factory=list)


def plan(
    base: str | Path,
    candidate: str | Path,
    *,
    suite: str | Path = "quick",
    gates: str | Path = "default",
    out: str | Path | None = None,
    resume: str | Path | None = None,
    device: str | None = None,
    limit: int | None = None,
    stop_early: bool = False,
    command: str = "",
) -> Plan:
    """Read and check everything that can be checked without loading weights."""
    reference, other = load_model_spec(base), load_model_spec(candidate)
    chosen = _limited(load_suite(assets.find("suites", suite)), limit)
    policy = load_policy(assets.find("gates", gates))
    for spec in (reference, other):
        resolve_spec(spec)
    if resume is not None:
        path = Path(resume)
        if Run.open(path).manifest.get("files"):
            raise InputError(
                "this run is complete: there is nothing to resume", path=path, key="--resume",
                remedy="`evalharness gate RUN` decides it again; `report RUN` renders it again.",
            )  # fmt: skip
    else:
        path = Path(out) if out is not None else _default_out(reference, other)
        check_new(path)
    texts, notes = read_texts(chosen)
    tasks = None
    if chosen.tasks:
        from evalharness.data.items import prepare_tasks

        tasks = prepare_tasks(chosen.tasks, seed=chosen.seed)
        notes += tasks.messages
    check_resolvable(policy, sizes(texts, tasks))
    if stop_early:
        notes += unwatched(policy)
    return Plan(
        reference, other, chosen, policy, texts, tasks, path, device, resume is not None,
        stop_early, command, notes,
    )  # fmt: skip


def sizes(texts: list[Text], tasks: PreparedTasks | None) -> Sizes:
    """How many documents and items there will be to decide on."""
    items = {t.name: t.items for t in tasks.tasks} if tasks is not None else {}
    return Sizes(documents=Counter(t.corpus for t in texts), items=items)


def compare(job: Plan, progress: Progress | None = None) -> tuple[Result, Run]:
    """Measure and judge; returns the result and the run it was written to."""
    progress = progress or Progress()
    run = measure(job, progress)
    with progress.step("writing the report"):
        result = finish(run, job.policy)
    run.close()
    return result, run


def measure(job: Plan, progress: Progress) -> Run:
    """Load both models and record every block that is not recorded yet."""
    with warnings.catch_warnings():
        # bitsandbytes, say, warns at every forward pass of what it does by design.
        warnings.simplefilter("ignore")
        return _measure(job, progress)


def _measure(job: Plan, progress: Progress) -> Run:
    import transformers

    from evalharness.data import documents, windows
    from evalharness.models.load import load
    from evalharness.pair.check import check_pair
    from evalharness.pair.noise import noise_floor
    from evalharness.pair.separate import measure_separately
    from evalharness.pair.side import Side
    from evalharness.pair.tokens import TokenPass
    from evalharness.probes.latency import decode_latency
    from evalharness.probes.latency import peak_memory as peak_of
    from evalharness.probes.layers import LayerProbe

    started = time.perf_counter()
    suite = job.suite
    with progress.step(f"loading {job.reference.name}") as say:
        loaded_ref = load(job.reference, device=job.device, progress=say)
    with progress.step(f"loading {job.candidate.name}") as say:
        loaded_cand = load(job.candidate, device=job.device, progress=say)
    reference, candidate = Side(loaded_ref), Side(loaded_cand)
    pair_warnings = check_pair(reference, candidate, suite)
    loaded_at = time.perf_counter()

    docs = documents.tokenize(job.texts, suite, loaded_ref.tokenizer, reference.vocab_size)
    slots = windows.cut(docs, suite, documents.bos_token(loaded_ref.tokenizer))
    blocks = windows.blocks(docs, slots, BLOCK_TOKENS // (4 if job.stop_early else 1))
    sides: dict[str, dict[str, Any]] = {
        side: {"manifest": loaded.manifest.model_dump(), "simulated": spec.simulate is not None,
               "split": half.split}
        for side, loaded, spec, half in (
            ("reference", loaded_ref, job.reference, reference),
            ("candidate", loaded_cand, job.candidate, candidate),
        )
    }  # fmt: skip
    inputs = {
        "reference": job.reference.model_dump(mode="json", by_alias=True),
        "candidate": job.candidate.model_dump(mode="json", by_alias=True),
        "suite": suite.model_dump(mode="json"),
        "token_stream": documents.fingerprint(docs),
        "weights": [s["manifest"]["fingerprint"] for s in sides.values()],
        "tokenizers": [s["manifest"]["tokenizer_fingerprint"] for s in sides.values()],
    }
    identity = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    same = suite.tokenizers == "same"
    probe = None
    if same and "layers" in suite.probes:
        probe = LayerProbe(reference, candidate, suite.layers.linears, suite.layers.errors)
    short = len(job.texts) - len(docs)
    manifest = {
        **inputs,
        "identity": identity,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "evalharness": __version__,
        "command": job.command,
        "sides": sides,
        "matching": probe.matching.model_dump() if probe else None,
        "blocks": len(blocks),
        # The sequence is narrowest here; fixed before the first document is seen.
        "stop_early": {"tuned_for": max(30, len(docs) // 4)} if job.stop_early else None,
        "environment": environment(transformers.__version__, str(candidate.device)),
        "warnings": [
            *job.warnings,
            *pair_warnings,
            *(probe.matching.notes if probe else []),
            *([f"{short} documents were too short to score and left out"] if short else []),
            *(f"{x.name}: {m}" for x in (loaded_ref, loaded_cand) for m in x.messages),
        ],
    }
    run = Run.resume(job.out, identity) if job.resume else Run.create(job.out, manifest)
    for loaded in (loaded_ref, loaded_cand):
        for message in loaded.messages:
            run.log("loader", message, model=loaded.name)
    if same and slots and "noise_floor" not in run.manifest:
        with progress.step("measuring the noise floor"):
            run.update(noise_floor=noise_floor(reference, docs, slots, suite.batch_size))
    with _finishing_blocks(job) as interrupted:
        done = run.done()
        total = sum(len(s.ids) for s in slots)
        with progress.count("tokens through both models", total, "tokens") as advance:
            work: Any = (
                TokenPass(reference, candidate, docs, batch_size=suite.batch_size, probe=probe,
                          progress=advance)
                if same
                else None
            )  # fmt: skip
            for number, block in enumerate(blocks):
                name = f"{number:05d}"
                if name in done:
                    advance(sum(len(s.ids) for s in block))
                    continue
                if work is not None:
                    tables = work.measure(block)
                else:
                    numbers = {s.document for s in block}
                    own = [d for d in docs if d.number in numbers]
                    tables = measure_separately(reference, candidate, own, job.texts, suite)
                    advance(sum(len(s.ids) for s in block))
                run.write_block(name, tables)
                interrupted()
                if job.stop_early and number + 1 < len(blocks) and decided(run, job.policy):
                    seen = max(s.document for s in block) + 1
                    run.update(warnings=[
                        *run.manifest["warnings"],
                        f"stopped early, every blocking gate on text being decided: {seen} of "
                        f"{len(docs)} documents were measured",
                    ])  # fmt: skip
                    break
        if probe is not None:
            run.update(matching=_with_unmeasured(run, probe))
        if "latency" in suite.probes and "latency" not in done and slots:
            with progress.step("measuring decode latency"):
                timings = decode_latency(reference, candidate, slots)
                peaks = [peak_of(s, slots[0], suite.batch_size) for s in (reference, candidate)]
            run.write_block("latency", {"timings": timings})
            if None not in peaks:
                run.update(peak_bytes=dict(zip(("reference", "candidate"), peaks, strict=True)))
        passed_at = time.perf_counter()
        if job.tasks is not None:
            from evalharness.pair.tasks import run_tasks

            names = frozenset(n.removeprefix("task-") for n in done if n.startswith("task-"))
            with progress.count("tasks on both models", None, "requests") as advance:
                for task in run_tasks(
                    loaded_ref, loaded_cand, job.tasks, batch_size=suite.batch_size,
                    seed=suite.seed, progress=advance.report, done=names,
                ):  # fmt: skip
                    run.write_block(f"task-{task.task}", task_tables(task))
                    interrupted()
    finished = time.perf_counter()
    run.update(
        seconds={
            "loading": loaded_at - started,
            "tokens": passed_at - loaded_at,
            "tasks": finished - passed_at,
        },
        peak_memory=peak_memory(),
    )
    return run


def _with_unmeasured(run: Run, probe: LayerProbe) -> dict[str, Any]:
    """The match report with the modules of which no record was made."""
    seen = set(run.table("layers", ["layer"])["layer"].to_pylist())
    missing = [f"{p.name} ({p.type})" for p in probe.pairs if p.name not in seen]
    return probe.matching.model_copy(update={"not_measured": missing}).model_dump()


def task_tables(task: TaskRun) -> dict[str, pa.Table]:
    """The records of one lm-eval task."""
    return {
        "items": pa.Table.from_pandas(task.frame, schema=records.ITEMS, preserve_index=False),
        "tasks": pa.Table.from_pylist(
            [{k: getattr(r, k) for k in records.TASKS.names} for r in task.results],
            schema=records.TASKS,
        ),
        "anomalies": pa.Table.from_pylist(
            [{"kind": "task", "message": m} for m in task.anomalies], schema=records.ANOMALIES
        ),
    }


@contextmanager
def _finishing_blocks(job: Plan) -> Iterator[Any]:
    """The first Ctrl-C lets the block in hand finish; a second one stops at once."""
    asked = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("finishing this block; Ctrl-C again to stop at once", file=sys.stderr)

    def check() -> None:
        if asked:
            raise Interrupted(f"interrupted. To go on: {resume_command(job)}")

    previous = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, on_signal)
    except ValueError:  # not the main thread: whoever runs us handles signals
        yield check
        return
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, previous)


def resume_command(job: Plan) -> str:
    """The command that takes this run up again."""
    command = re.sub(r" --(out|resume)[ =]\S+| -o \S+", "", job.command)
    return f"{command} --resume {job.out}"


def environment(transformers_version: str, device: str) -> dict[str, str]:
    """Versions and hardware."""
    import torch

    found = {
        "evalharness": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers_version,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else _cpu(),
        "threads": str(torch.get_num_threads()),
    }
    for package in ("lm_eval", "bitsandbytes", "torchao", "peft", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return found[1] if found else platform.machine()


def _limited(suite: Suite, limit: int | None) -> Suite:
    """``--limit N``: at most N documents a corpus and N items a task."""
    if limit is None:
        return suite
    if limit < 1:
        raise InputError(
            f"must be at least 1 (got {limit})", key="--limit",
            remedy="Leave it out to measure everything the suite names.",
        )  # fmt: skip
    least = {"corpora": "documents", "tasks": "limit"}
    changes = {
        kind: tuple(
            part.model_copy(update={key: min(limit, getattr(part, key) or limit)})
            for part in getattr(suite, kind)
        )
        for kind, key in least.items()
    }
    return suite.model_copy(update=changes)


def _default_out(reference: ModelSpec, candidate: ModelSpec) -> Path:
    def tidy(name: str) -> str:
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)

    now = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{tidy(reference.name)}--{tidy(candidate.name)}-{now}"
