"""Both models over texts and tasks, block by block; each block is on disk before the next begins.

What depends on the reference alone (its weights, the windows, the noise floor, the cache of its
hidden states) is a `Reference`, which any number of candidates share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import torch

from evalharness.compat.silence import Warned, warnings_kept
from evalharness.data.calibration import calibration_windows
from evalharness.data.windows import longest
from evalharness.gates import check_layers, check_processes, refuse_noise
from evalharness.pair.compatible import check_pair, other_tokens
from evalharness.pair.side import Side
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.pair.texts.two_tokenizers import (
    Readings,
    left_out,
    measure_separately,
    read_by_both,
)
from evalharness.pair.watcher import Watcher
from evalharness.probes import Probe, ProbeRun
from evalharness.probes.registry import measured, probes_of
from evalharness.progress import Progress
from evalharness.run.directory import Run
from evalharness.run.environment import peak_memory
from evalharness.spec.suite import NoiseFloor, Suite
from evalharness.workflow.apart import FreshProcesses, let_go
from evalharness.workflow.begin import begin
from evalharness.workflow.engine_control import control
from evalharness.workflow.interrupt import finishing_blocks
from evalharness.workflow.memory_plan import MemoryPlan, computing_notes, plan_memory
from evalharness.workflow.noise_floor import Floor, noise_floor, of_both
from evalharness.workflow.own_tokens import check_own_tokens
from evalharness.workflow.plan import Job, timed_processes
from evalharness.workflow.positions import check_positions
from evalharness.workflow.record_tasks import record_tasks
from evalharness.workflow.reference import Reference, load_side
from evalharness.workflow.stopping import Looks, look, look_shares

if TYPE_CHECKING:
    from evalharness.data.windows import Window

ENGINE_WINDOWS = 4  # of the noise floor of an engine in a process of its own


def measure_pair(job: Job, progress: Progress, reference: Reference | None = None) -> Run:
    """Load what is not loaded and record every block that is not recorded yet."""
    started = time.perf_counter()
    with warnings_kept() as warned:
        memory = job.memory or plan_memory(job.reference, job.candidate, job.suite, job.device)
        for line in memory.lines:
            progress.detail(line)
        for note in check_processes(job.policy, timed_processes(job.suite)):
            progress.tell(note)
        computing = computing_notes(job.device, job.reference, job.candidate)
        beyond = [*computing, *check_positions(job)]
        shared = reference is not None
        for note in [] if shared else computing:
            progress.tell(note)
        if not shared:
            check_own_tokens(job)
        reference = reference or Reference(job, memory, progress)
        # Before the candidate takes its place, and before anything is written: a limit that
        # rounding alone could break is wrong input.
        floor = _floor(job, reference, progress)
        if memory.mode == "in_turn":
            reference.go_alone(memory.batch_size, progress)
        candidate = load_side(job.candidate, job.device, memory, progress)
        if candidate.streams and floor.ways and not candidate.top_logprobs:
            floor = _of_both(job, reference, candidate, floor, progress)
        noted = [*beyond, *check_pair(reference.side, candidate, job.suite)]
        noted += _fed_alone(reference, candidate, job.suite)
        readings = _readings(job, reference, candidate)
        if readings is not None:
            noted += left_out(reference.documents, readings, candidate.loaded.name)
        work = Measurement(job, memory, reference, candidate, progress, readings)
        unlike = _other_tokens(job, reference, candidate)
        if not job.resume:  # the run has what it showed
            wrong, why = _controlled(job, reference, candidate, progress)
            unlike, noted = [*unlike, *wrong], [*noted, *why]
        for text in unlike:
            progress.tell(text)
        run = begin(
            job,
            reference,
            candidate,
            watcher=work.watcher,
            floor=floor,
            noted=noted,
            anomalies=unlike,
        )
        try:
            loaded = time.perf_counter()
            with _noting(warned, run), finishing_blocks() as interrupted:
                work.start(run, interrupted)
                work.texts()
                work.probes()
                passed = time.perf_counter()
                work.tasks()
                asked = time.perf_counter()
                work.apart(loaded - started, shared)
            seconds = {
                "loading": loaded - started,
                "tokens": passed - loaded,
                "tasks": asked - passed,
            }
            if work.is_apart:
                seconds["fresh processes"] = time.perf_counter() - asked
            run.update(
                seconds=seconds,
                peak_memory=peak_memory(),
            )
            run.seal()  # all that was planned is recorded: from here on the run can be judged
        except BaseException:
            run.close()
            raise
    return run


def _fed_alone(reference: Reference, candidate: Side, suite: Suite) -> list[str]:
    """Of which side windows are fed one at a time, and why."""
    tokens = longest(reference.windows)
    if suite.tokenizers == "different":
        tokens = suite.window.tokens  # the candidate's windows are others
    found = [side.alone_because(tokens) for side in (reference.side, candidate)]
    return [
        f"{why}: windows are fed one at a time, unpadded" for why in dict.fromkeys(found) if why
    ]


def _controlled(
    job: Job, reference: Reference, candidate: Side, progress: Progress
) -> tuple[list[str], list[str]]:
    """Both engines held against their weights: what is wrong, and what could not be said."""
    anomalies: list[str] = []
    notes: list[str] = []
    for side, spec, beside in (
        (reference.side, job.reference, None),
        (candidate, job.candidate, None if reference.side.released else reference.side),
    ):
        if side.top_logprobs:
            notes.append(
                f"{side.loaded.name}: neither its noise floor nor its weights are looked at: it is "
                "behind a server"
            )
        elif side.streams and side.loaded.manifest.control is None:
            texts = (reference.documents, reference.windows)
            wrong, why = control(side, spec, beside, *texts, progress)
            anomalies, notes = [*anomalies, *wrong], [*notes, *why]
    return anomalies, notes


def _readings(job: Job, reference: Reference, candidate: Side) -> Readings | None:
    """How each side reads the texts, where the two read them differently."""
    if job.suite.tokenizers == "same" or not job.suite.corpora:
        return None
    return read_by_both(
        reference.documents,
        reference.windows,
        job.texts,
        job.suite,
        name=candidate.loaded.name,
        tokenizer=candidate.loaded.tokenizer,
        vocab_size=candidate.vocab_size,
    )


def _other_tokens(job: Job, reference: Reference, candidate: Side) -> list[str]:
    ours, theirs = ((s.loaded.name, s.loaded.tokenizer) for s in (reference.side, candidate))
    return other_tokens(job.suite, ours, theirs, reference.documents, job.texts)


@contextmanager
def _noting(warned: Warned, run: Run) -> Iterator[None]:
    """Put what was warned of inside into the run, also of one that is to be resumed."""
    try:
        yield
    finally:
        for text in warned.others:
            run.log("warning", text)
        run.warn(warned.numerical)


def _floor(job: Job, reference: Reference, progress: Progress) -> Floor:
    """The noise floor, held against the policy's limits; a resumed run keeps the one it has."""
    floor = Floor({})
    if job.resume:
        floor = Floor(Run.open(job.out).manifest.get("noise_floor") or {})
    elif job.suite.tokenizers == "same" and reference.windows:
        floor = reference.noise_floor(progress)
    refuse_noise(job.policy, floor.values)
    return floor


def _of_both(
    job: Job, reference: Reference, candidate: Side, floor: Floor, progress: Progress
) -> Floor:
    """The floor of both sides: an engine's own kernels may differ by the shape of their chunk."""
    name = candidate.loaded.name
    with progress.step(f"measuring the noise floor of {name}"):
        own = noise_floor(
            candidate, reference.documents, reference.windows, 1, NoiseFloor(windows=ENGINE_WINDOWS)
        )
    found = of_both(floor, name, own)
    refuse_noise(job.policy, found.values)
    return found


class Measurement:
    """Two loaded models, and what is to be recorded of them."""

    def __init__(
        self,
        job: Job,
        memory: MemoryPlan,
        reference: Reference,
        candidate: Side,
        progress: Progress,
        readings: Readings | None = None,
    ) -> None:
        self.job, self.memory, self.readings = job, memory, readings
        self.reference, self.candidate = reference, candidate
        self.progress = progress
        self.watcher: Watcher | None = None
        self.run: Run
        self.interrupted: Callable[[], None]
        different = job.suite.tokenizers == "different"
        self._probes = [
            (probe, self._probe_run(probe))
            for probe in probes_of(job.suite)
            if not (probe.needs_same_tokens and different)
            and not (reference.side.streams or candidate.streams)
        ]
        for probe, own in self._probes:
            if probe.watch is not None:
                own.watcher = self.watcher = probe.watch(own)
        if self.watcher is not None:
            found = self.watcher.matching
            alone = (*found.unmatched_reference, *found.unmatched_candidate)
            unmatched = [text.partition(" (")[0] for text in alone]
            check_layers(job.policy, [*self.watcher.described, *unmatched])

    def start(self, run: Run, interrupted: Callable[[], None]) -> None:
        """Record into ``run`` from here on; ``interrupted`` is called between blocks."""
        self.run, self.interrupted = run, interrupted
        for block in run.damaged:
            self._say(f"the records of block {block} were damaged or missing: measured again")
        for line in self.memory.lines:
            run.log("memory", line)
        if self.reference.cache is not None:
            self.reference.cache.say = self._say

    def _say(self, text: str) -> None:
        self.run.log("pass", text)
        self.progress.tell(text)

    def texts(self) -> None:
        """Record every block of texts, until the policy is decided where it may stop early."""
        run, blocks, done = self.run, self.reference.blocks, self.run.done()
        rule = self.job.stopping
        shares = look_shares(blocks, rule["looks"]) if rule and "looks" in rule else {}
        looks = Looks(run, self.job.deciding)
        total = sum(len(w.ids) for w in self.reference.windows)
        with self.progress.count("tokens through both models", total, "tokens") as advance:
            work = self._pass(advance)
            for number, block in enumerate(blocks):
                if f"{number:05d}" in done:
                    advance(sum(len(w.ids) for w in block))
                else:
                    run.write_block(f"{number:05d}", self._block(work, block, advance))
                    self.interrupted()
                looks.add(f"{number:05d}")
                last = number + 1 == len(blocks) or f"{number + 1:05d}" in done
                if number in shares:
                    look(run, shares[number])
                looked = rule is not None and (number in shares or rule["rule"] == "sequence")
                if looked and not last and looks.decided():
                    seen = max(w.document for w in block) + 1
                    run.warn(
                        [
                            "stopped early, every blocking gate on text being decided: "
                            f"{seen} of {len(self.reference.documents)} documents were measured"
                        ]
                    )
                    break
        if self.watcher is not None:
            run.update(matching=self.watcher.matching_after(run).model_dump())

    def _pass(self, advance: Callable[[int], None]) -> TokenPass:
        return TokenPass(
            self.reference.side,
            self.candidate,
            self.reference.documents,
            batch_size=self.memory.batch_size,
            probe=self.watcher,
            cache=self.reference.cache,
            chunk=self.memory.chunk,
            progress=advance,
            say=self._say,
            compiled=bool(self.run.manifest.get("compiled_statistics")),
        )

    def _block(
        self, work: TokenPass, block: list[Window], advance: Callable[[int], None]
    ) -> dict[str, pa.Table]:
        """The records of one block; the pass itself counts its tokens."""
        if self.readings is None:
            return work.run(block)
        numbers = {w.document for w in block}
        tables = measure_separately(self.reference.side, self.candidate, numbers, self.readings)
        advance(sum(len(w.ids) for w in block))
        return tables

    def probes(self) -> None:
        """Record what probes measure after the pass, in passes of their own."""
        for probe, own in self._probes:
            block = probe.block or probe.name
            idle = probe.needs_corpus and not self.reference.windows
            if probe.measure is None or idle or block in self.run.done():
                continue
            with torch.inference_mode():
                tables = measured(probe, own)
            if own.facts:  # first: once its block is there the probe is not run again
                self.run.update(**own.facts)
            if tables:
                self.run.write_block(block, tables)
            self.interrupted()

    @property
    def is_apart(self) -> bool:
        """Whether a probe is measured in fresh processes."""
        return any(own.apart for _, own in self._probes)

    def apart(self, loading_s: float, shared: bool) -> None:
        """Record what probes measure in fresh processes, last of all.

        Both models are loaded there again, so this process first lets go of those that it is done
        with: the reference as well, unless it is ``shared`` with other candidates.
        """
        if not self.is_apart:
            return
        let_go(self.candidate, *([] if shared else [self.reference.side]))
        fresh = FreshProcesses(
            job=self.job,
            mode=self.memory.mode,
            run=self.run,
            progress=self.progress,
            interrupted=self.interrupted,
            loading_s=loading_s,
        )
        for probe, own in self._probes:
            if own.apart:
                fresh.measure(probe, own)

    def _probe_run(self, probe: Probe) -> ProbeRun:
        job, side = self.job, self.reference.side
        text = job.calibration if probe.reads_calibration else []
        tokenizer, size = side.loaded.tokenizer, side.vocab_size
        calibration = calibration_windows(text, job.candidate, job.suite, tokenizer, size)
        settings, apart = probe.settings_in(job.suite), 0
        # A simulated candidate's seconds are those of its reference: one look at them is enough.
        if probe.apart is not None and job.candidate.simulate is None:
            count = probe.apart.processes(settings)
            apart = count if count > 1 else 0
        return ProbeRun(
            reference=side,
            candidate=self.candidate,
            windows=self.reference.windows,
            suite=job.suite,
            settings=settings,
            calibration=calibration,
            progress=self.progress,
            apart=apart,
        )

    def tasks(self) -> None:
        """Record every task."""
        if self.job.tasks is not None:
            record_tasks(
                self.reference.side,
                self.candidate,
                self.job.tasks,
                self.job.suite,
                self.run,
                progress=self.progress,
                say=self._say,
                between=self.interrupted,
                kept=self.reference.prompts,
            )
