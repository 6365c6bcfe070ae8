"""An engine in a process of its own: started, asked, watched and ended.

The other end is `evalharness.engines.workers.serve`. A child that dies, hangs or answers what it
was not asked is one `RunError` that names its log; nothing that was recorded is lost by it.
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
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from evalharness.engines.base import Say
from evalharness.engines.workers import serve
from evalharness.errors import InputError, RunError

ALIVE = 2.0  # seconds between two signs of life
SILENT = 30.0  # seconds without one, and without work on a processor: the process hangs
STUCK = 600.0  # seconds over one chunk of logits
LOADING = 1800.0  # seconds over loading
TOLD = 20.0  # seconds between two words on loading that goes on
POLL = 1.0  # seconds
LOG_LINES = 6
SERVE = Path(serve.__file__)

Logits = npt.NDArray[np.float32]


class Child:
    """One engine's process.

    Parameters
    ----------
    name : of the model, for messages.
    driver : the file of `evalharness.engines.workers` that drives the engine.
    options : handed to its ``load``; ``chunk`` is among them.
    python : the interpreter that has the engine.

    Raises
    ------
    InputError : there is no such interpreter, or it has no such engine.
    RunError : the engine cannot load the model.

    """

    def __init__(
        self,
        name: str,
        driver: Path,
        options: dict[str, Any],
        *,
        python: str | None = None,
        say: Say = lambda text: None,
    ) -> None:
        self.name = name
        self.chunk = int(options["chunk"])
        self._asked = 0
        descriptor, log = tempfile.mkstemp(prefix="evalharness-engine-", suffix=".log")
        self.log = Path(log)
        self.python = python or sys.executable
        try:
            with os.fdopen(descriptor, "wb") as stderr:
                self._process = subprocess.Popen(
                    [self.python, str(SERVE), str(os.getpid()), str(ALIVE)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                )
        except OSError as error:
            self.log.unlink(missing_ok=True)
            raise InputError(
                f"{self.python} cannot be run ({error.strerror})",
                key="model.python",
                remedy="Give the path of the Python that the engine is installed in.",
            ) from None
        # Neither thread holds this object, so that the process ends when nobody does.
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._unsaid: queue.Queue[str | None] = queue.Queue()
        for task, pipe, lines in (
            (_listen, self._process.stdout, self._lines),
            (_talk, self._process.stdin, self._unsaid),
        ):
            threading.Thread(target=task, args=(pipe, lines), daemon=True).start()
        self._finalizer = weakref.finalize(self, _end, self._process, self.log, self._unsaid)
        self._silent = _Silence(self._process.pid)
        self._failure = ""  # what ended it
        self._slots: Logits
        self._load(driver, options, say)

    def _load(self, driver: Path, options: dict[str, Any], say: Say) -> None:
        self._tell(do="load", driver=str(driver), options=options)
        answer = self._answer("loading", LOADING, say)
        if answer.get("version") != serve.VERSION:
            raise self._failed(
                f"speaks version {answer.get('version')} of the protocol and not {serve.VERSION}"
            )
        self.info: dict[str, Any] = answer["loaded"]
        self.vocabulary = self.info["vocabulary"]
        if type(self.vocabulary) is not int or self.vocabulary < 1:
            raise self._failed(f"has a vocabulary of {self.vocabulary!r} tokens")
        shape = (serve.SLOTS, self.chunk, self.vocabulary)
        size = 4 * shape[0] * shape[1] * shape[2]
        place = _memory(size)
        try:
            file = tempfile.NamedTemporaryFile(prefix="evalharness-logits-", dir=place)  # noqa: SIM115
            with file:
                _reserve(file.fileno(), size)
                self._slots = np.memmap(file.name, np.float32, "r+", shape=shape)
                self._tell(do="map", path=file.name)
                self._answer("sharing memory", SILENT)
        except OSError as error:
            raise self._failed(
                f"needs {size >> 20} MiB in {place or tempfile.gettempdir()} for the logits of "
                f"{self.chunk} tokens ({error.strerror}); a smaller model.chunk needs less"
            ) from None

    def rows(self, ids: list[int], first: int, chunk: int | None = None) -> Iterator[Logits]:
        """Logits (n, V) of the positions of ``ids`` from ``first`` on, in order, a copy each.

        A generator that is closed before its end stops the engine at its next chunk.
        """
        self._asked += 1
        number, at = self._asked, first
        self._tell(do="rows", id=number, ids=ids, first=first, chunk=chunk or self.chunk)
        ended = False
        try:
            while not ended:
                answer = self._next(number)
                if "end" in answer:
                    ended = True
                    break
                if answer["start"] != at:
                    raise self._failed(f"gave logits from {answer['start']} on instead of {at}")
                found = self._taken(answer)
                at += len(found)
                yield found
            if at != len(ids):
                raise self._failed(f"gave logits of {at} of {len(ids)} positions")
        finally:
            if not ended and self._finalizer.alive:
                self._tell(do="stop", id=number)
                self._drain(number)

    def extend(self, ids: list[int], *, fresh: bool) -> Logits:
        """Logits (V,) after ``ids``, which follow what was fed before unless ``fresh``."""
        self._asked += 1
        number = self._asked
        self._tell(do="extend", id=number, ids=ids, fresh=fresh)
        found = self._taken(self._next(number))
        self._drain(number)
        last: Logits = found[-1]
        return last

    def close(self) -> None:
        """End the process and drop its log."""
        self._finalizer()
        self._failure = self._failure or f"{self.name}: its engine is closed"

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def _taken(self, answer: dict[str, Any]) -> Logits:
        found: Logits = np.array(self._slots[answer["slot"], : answer["rows"]])
        self._tell(do="free", slot=answer["slot"])
        return found

    def _drain(self, number: int) -> None:
        while "end" not in (answer := self._next(number)):
            self._tell(do="free", slot=answer["slot"])

    def _next(self, number: int) -> dict[str, Any]:
        answer = self._answer("computing logits", STUCK)
        if answer.get("id") != number:
            raise self._failed(f"answered {str(answer)[:80]} to request {number}")
        return answer

    def _tell(self, **message: Any) -> None:
        """Say it from a thread: a process that hangs reads nothing, and the pipe is soon full."""
        self._unsaid.put(json.dumps(message) + "\n")

    def _answer(self, doing: str, most: float, say: Say | None = None) -> dict[str, Any]:
        """The next line that is no sign of life."""
        if self._failure:
            raise RunError(self._failure)
        took, told = 0.0, 0.0
        self._silent.heard()
        while True:
            began = time.monotonic()
            try:
                line = self._lines.get(timeout=POLL)
            except queue.Empty:
                line = {"alive": False}
            # A clock that stands still while this process is stopped, as Ctrl-Z stops both.
            passed = min(time.monotonic() - began, 2 * POLL)
            took += passed
            if line is None:
                self._lines.put(None)  # for who asks again
                raise self._dead(doing)
            if "error" in line:
                raise self._error(line, doing)
            if "alive" not in line:
                return line
            if line["alive"]:
                self._silent.heard()
            elif self._silent.lasts(passed) > SILENT:
                raise self._failed(f"gave no sign of life for {SILENT:.0f} s while {doing}")
            if took > most:
                raise self._failed(f"took more than {most:.0f} s over {doing}")
            if say is not None and took - told > TOLD:
                told = took
                say(f"loading {self.name}, for {took:.0f} s")

    def _error(self, line: dict[str, Any], doing: str) -> Exception:
        kind, text = line.get("kind"), line["error"]
        if doing == "loading" and kind in ("LookupError", "ModuleNotFoundError", "ImportError"):
            self.close()
            package = line.get("package")
            return InputError(
                f"{self.name}: {text} (Python: {self.python})",
                key="model.engine",
                remedy=(f"Run: pip install {package} there" if package else "Install it there")
                + ", or name the Python that has it with model.python.",
            )
        return self._failed(f"failed while {doing} ({kind}: {text})")

    def _dead(self, doing: str) -> RunError:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return self._failed(f"closed its output while {doing}")
        how = f"ended with code {code}"
        if code < 0:
            how = f"was killed by {_signal(-code)}"
            if -code == signal.SIGKILL:
                how += ", as happens where memory is out,"
        return self._failed(f"{how} while {doing}")

    def _failed(self, what: str) -> RunError:
        """One message, with the last lines of the log, which is kept."""
        self._finalizer.detach()
        _kill(self._process)
        self._unsaid.put(None)
        self._failure = f"{self.name}: its engine {what}"
        if self.log.exists():
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 4096))
                tail = deque(file.read().decode("utf-8", "replace").splitlines(), LOG_LINES)
            said = "".join(f"\n  | {line[:200]}" for line in tail)
            self._failure += f". The engine's log: {self.log}{said}"
        return RunError(self._failure)


class _Silence:
    """How long a process has shown no life: no line, and no work.

    An engine that computes may hold the interpreter, and with it the thread that says so.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.heard()

    def heard(self) -> None:
        """It spoke."""
        self._seconds, self._work = 0.0, _work(self._pid)

    def lasts(self, seconds: float) -> float:
        """So much longer; returns how long it has lasted."""
        self._seconds += seconds
        work = _work(self._pid)
        if work != self._work:
            self._seconds, self._work = 0.0, work
        return self._seconds


def _work(pid: int) -> int | None:
    """Time on processors, in the system's ticks; None: unknown, as beside Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return int(fields[11]) + int(fields[12])


def _listen(pipe: IO[str], lines: queue.Queue[dict[str, Any] | None]) -> None:
    with pipe:
        for text in pipe:
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if not isinstance(line, dict):
                line = {"error": f"a line of no meaning: {text[:80]!r}", "kind": "Protocol"}
            lines.put(line)
    lines.put(None)


def _talk(pipe: IO[str], lines: queue.Queue[str | None]) -> None:
    with suppress(OSError), pipe:  # it ended, which whoever listens will see
        while (line := lines.get()) is not None:
            pipe.write(line)
            pipe.flush()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _memory(size: int) -> str | None:
    """A directory in memory, where there is one with room; None: the usual temporary one."""
    place = Path("/dev/shm")  # noqa: S108 (unlinked as soon as both have it mapped)
    if not place.is_dir() or not os.access(place, os.W_OK):
        return None
    status = os.statvfs(place)
    return str(place) if status.f_bavail * status.f_frsize > 2 * size else None


def _reserve(file: int, size: int) -> None:
    """Make ``file`` that long; `OSError` where there is no room: writing would be a signal."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)


def _kill(process: subprocess.Popen[str]) -> None:
    """End it. Its pipes are closed by whoever reads or writes them, which ends with it."""
    process.kill()
    process.wait()


def _end(process: subprocess.Popen[str], log: Path, unsaid: queue.Queue[str | None]) -> None:
    """End a process that is no longer needed, and what talks to it."""
    _kill(process)
    unsaid.put(None)
    log.unlink(missing_ok=True)
