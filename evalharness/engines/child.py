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

SILENT = 30.0  # seconds without a sign of life, after which the process hangs
STUCK = 600.0  # seconds over one chunk of logits
LOADING = 1800.0  # seconds over loading
TOLD = 20.0  # seconds between two words on loading that goes on
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
                    [self.python, str(SERVE)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    encoding="utf-8",
                )
        except OSError as error:
            self.log.unlink(missing_ok=True)
            raise InputError(
                f"{self.python} cannot be run ({error.strerror})",
                key="model.python",
                remedy="Give the path of the Python that the engine is installed in.",
            ) from None
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._heard = time.monotonic()
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
        self._finalizer = weakref.finalize(self, _end, self._process, self.log)
        self._slots: Logits
        self._load(driver, options, say)

    def _load(self, driver: Path, options: dict[str, Any], say: Say) -> None:
        self._tell(do="load", driver=str(driver), options=options)
        self.info: dict[str, Any] = self._answer("loading", LOADING, say)["loaded"]
        self.vocabulary = int(self.info["vocabulary"])
        shape = (serve.SLOTS, self.chunk, self.vocabulary)
        with tempfile.NamedTemporaryFile(prefix="evalharness-logits-", dir=_memory()) as file:
            file.truncate(4 * shape[0] * shape[1] * shape[2])
            self._slots = np.memmap(file.name, np.float32, "r+", shape=shape)
            self._tell(do="map", path=file.name)
            self._answer("sharing memory", SILENT)

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
                at += answer["rows"]
                yield self._taken(answer)
            if at != len(ids):
                raise self._failed(f"gave logits of {at} of {len(ids)} positions")
        finally:
            if not ended and self._process.poll() is None:
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
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._dead("taking a request") from None

    def _answer(self, doing: str, most: float, say: Say | None = None) -> dict[str, Any]:
        """The next line that is no sign of life."""
        began = told = time.monotonic()
        self._heard = max(self._heard, began)
        while True:
            try:
                line = self._lines.get(timeout=1.0)
            except queue.Empty:
                line = {"alive": False}
            if line is None:
                raise self._dead(doing)
            now = time.monotonic()
            if "error" in line:
                raise self._error(line, doing)
            if "alive" not in line:
                return line
            if line["alive"]:
                self._heard = now
            if now - self._heard > SILENT:
                raise self._stopped(f"gave no sign of life for {SILENT:.0f} s while {doing}")
            if now - began > most:
                raise self._stopped(f"took more than {most:.0f} s over {doing}")
            if say is not None and now - told > TOLD:
                told = now
                say(f"loading {self.name}, for {now - began:.0f} s")

    def _listen(self, lines: IO[str]) -> None:
        for text in lines:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"error": f"a line that is no JSON: {text[:80]!r}", "kind": "Protocol"}
            self._lines.put(line)
        self._lines.put(None)

    def _error(self, line: dict[str, Any], doing: str) -> Exception:
        text = f"{self.name}: {line['error']}"
        if line["kind"] in ("LookupError", "ModuleNotFoundError", "ImportError"):
            return InputError(
                f"{text} (Python: {self.python})",
                key="model.engine",
                remedy="Install it there, or name the Python that has it with model.python.",
            )
        return self._failed(f"failed while {doing} ({line['kind']}: {line['error']})")

    def _dead(self, doing: str) -> RunError:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return self._stopped(f"closed its output while {doing}")
        how = f"ended with code {code}"
        if code < 0:
            name = signal.Signals(-code).name
            how = f"was killed by {name}"
            if name == "SIGKILL":
                how += ", as happens where memory is out,"
        return self._failed(f"{how} while {doing}")

    def _stopped(self, what: str) -> RunError:
        self._process.kill()
        return self._failed(what)

    def _failed(self, what: str) -> RunError:
        """One message, with the last lines of the log, which is kept."""
        self._finalizer.detach()
        _kill(self._process)
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 4096))
            tail = deque(file.read().decode("utf-8", "replace").splitlines(), LOG_LINES)
        said = "".join(f"\n  | {line[:200]}" for line in tail)
        return RunError(f"{self.name}: its engine {what}. The engine's log: {self.log}{said}")


def _memory() -> str | None:
    """A directory in memory, where there is one with room; None: the usual temporary one."""
    place = Path("/dev/shm")  # noqa: S108 (unlinked as soon as both have it mapped)
    if not place.is_dir() or not os.access(place, os.W_OK):
        return None
    status = os.statvfs(place)
    return str(place) if status.f_bavail * status.f_frsize > 1 << 30 else None


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was still to be written has no reader
                pipe.close()


def _end(process: subprocess.Popen[str], log: Path) -> None:
    """End a process that is no longer needed."""
    _kill(process)
    log.unlink(missing_ok=True)
