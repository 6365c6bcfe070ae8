"""Probes that measure in fresh processes: started one after the other, once all else is recorded.

What a process measures is a block of records (``latency-2``), so that a run which is cut off goes
on with the next. A process that fails costs its probe and nothing else: the manifest says why it
was not measured, and no gate passes on it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evalharness.engines.device_memory import free_bytes, gib
from evalharness.errors import RunError
from evalharness.pair.faults import free_memory
from evalharness.pair.side import Side
from evalharness.probes import Probe, ProbeRun
from evalharness.progress import Progress
from evalharness.run.directory import Run
from evalharness.spec.permissions import as_options
from evalharness.workflow.memory_plan import SPARE
from evalharness.workflow.plan import Job

QUIET_S = 30.0  # a line says that it goes on
SILENCE_S = 600.0  # without a sign of life; and ten times what loading took here
CLOSING_S = 10.0  # between the end of its output and its own
LAST_WORDS = 3  # lines of what a process printed before it died
COMMAND = (sys.executable, "-m", "evalharness.workflow.fresh_process")


@dataclass(frozen=True, kw_only=True)
class FreshProcesses:
    """Starts them for one comparison."""

    job: Job
    mode: str  # of the memory plan
    run: Run
    progress: Progress
    interrupted: Callable[[], None]  # raises where the user wants to stop
    loading_s: float  # what loading both models took in this process

    def measure(self, probe: Probe, own: ProbeRun) -> None:
        """Have ``probe`` measured in every process whose block is not recorded."""
        assert probe.apart is not None
        request = probe.apart.request(own)
        if request is None:
            return  # `Probe.measure` has said why
        done = self.run.done()
        missing = [n for n in range(1, own.apart + 1) if f"{probe.name}-{n}" not in done]
        why = self._no_room(own) if missing else None
        for number in missing if why is None else ():
            what = f"{probe.name}, fresh process {number} of {own.apart}"
            try:
                with self.progress.step(what) as say:
                    tables = self._in_process(probe.name, number, request, what, say)
            except RunError as error:
                why = f"process {number} of {own.apart} {error}"
                break
            self.run.write_block(f"{probe.name}-{number}", tables)
            self.interrupted()
        known = dict(self.run.manifest.get("not_measured", {}))
        if why is not None:
            self.progress.tell(_warning(probe.name, why))
            self.run.log("apart", why, probe=probe.name)
            self.run.warn([_warning(probe.name, why)])
            self.run.update(not_measured={**known, probe.name: why})
        elif probe.name in known:  # of a process that failed before this run was taken up again
            self._forget(probe.name, known.pop(probe.name))
            self.run.update(not_measured=known)

    def _forget(self, probe: str, why: str) -> None:
        known = self.run.manifest.get("warnings", [])
        self.run.update(warnings=[text for text in known if text != _warning(probe, why)])

    def _no_room(self, own: ProbeRun) -> str | None:
        """Why the two models cannot be loaded beside what this process still holds."""
        need: dict[Any, int] = {}
        for side in (own.reference, own.candidate):
            weights = side.loaded.manifest.resident_bytes or 0  # 0: not known
            need[side.device] = need.get(side.device, 0) + weights
        for device, wanted in need.items() if self.mode != "offload" else ():
            free = free_bytes(device)
            if free is not None and wanted > SPARE * free:
                return (
                    f"the two models need {gib(wanted)} once more in a fresh process, and "
                    f"{gib(free)} is free on {device} beside this one. `latency: {{processes: 1}}` "
                    "shows it within the run; an interval takes a larger device"
                )
        return None

    def _in_process(
        self, probe: str, number: int, request: Any, what: str, say: Callable[[str], None]
    ) -> dict[str, pa.Table]:
        options = as_options()
        with tempfile.TemporaryDirectory(prefix="evalharness-") as folder:
            asked = {
                "probe": probe,
                "number": number,
                "request": request,
                "reference": self.job.reference.model_dump(mode="json", by_alias=True),
                "candidate": self.job.candidate.model_dump(mode="json", by_alias=True),
                "device": self.job.device,
                "mode": self.mode,
                "tables": folder,
                "allow_code": options["allow-code"],
                "confined": options["confined"],
            }
            log = Path(folder) / "stderr.txt"
            with _started(asked, log) as process:
                self._wait(process, log, what, say)
            return {p.stem: pq.read_table(p) for p in sorted(Path(folder).glob("*.parquet"))}

    def _wait(
        self,
        process: subprocess.Popen[str],
        log: Path,
        what: str,
        say: Callable[[str], None],
    ) -> None:
        """Until it says that it is done; raises `RunError` where it fails, dies or falls silent."""
        lines = _lines(process)
        started = heard = said = time.monotonic()
        patience, doing = SILENCE_S + 10 * self.loading_s, "starting"
        while True:
            self.interrupted()
            now = time.monotonic()
            if now - said > QUIET_S:
                said = now
                self.progress.still(f"{what}: {doing}, {now - started:.0f} s")
            if now - heard > patience:
                raise RunError(f"gave no sign of life for {patience:.0f} s while {doing}")
            try:
                line = lines.get(timeout=0.2)
            except queue.Empty:
                continue
            if line is None:
                raise RunError(_died(process, doing, log))
            heard, found = now, json.loads(line)
            if "error" in found:
                self.run.log("apart", _read(log), probe=what)
                raise RunError(f"failed while {doing}: {found['error']}")
            if found.get("done"):
                return
            doing = found["doing"]
            say(f"{what}: {doing}")


def _warning(probe: str, why: str) -> str:
    return f"{probe} is not measured: {why}"


@contextmanager
def _started(asked: dict[str, Any], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A fresh process that was told ``asked``; it does not outlive the block, nor this process."""
    here = str(Path(__file__).resolve().parents[2])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        with open(log, "w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C is for this process, which then ends the other
            )
    except OSError as error:
        raise RunError(f"could not be started ({error})") from error
    try:
        assert process.stdin is not None
        with suppress(OSError):  # it died at once, which its output shows
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None and hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # with what it may have started itself
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):
            if stream is not None:
                stream.close()


def _lines(process: subprocess.Popen[str]) -> queue.Queue[str | None]:
    """What it says, line by line; None once it has ended."""
    found: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                found.put(line)
        except (OSError, ValueError):  # closed while it was read
            pass
        found.put(None)

    threading.Thread(target=read, daemon=True).start()
    return found


def _died(process: subprocess.Popen[str], doing: str, log: Path) -> str:
    try:
        code = process.wait(timeout=CLOSING_S)
    except subprocess.TimeoutExpired:
        return f"closed its output while {doing}"
    how = f"exit code {code}"
    if code < 0:
        how = f"signal {-code}, {signal.strsignal(-code) or 'unknown'}"
        if -code == getattr(signal, "SIGKILL", 9):
            how += ": the system may have run out of memory"
    last = [line.strip() for line in _read(log).splitlines() if line.strip()][-LAST_WORDS:]
    words = f"; its last words: {' / '.join(last)}" if last else ""
    return f"ended while {doing} ({how}){words}"


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


def let_go(*sides: Side) -> None:
    """Free the weights of sides that this process is done with."""
    for side in sides:
        side.release()
        free_memory(side.device)
