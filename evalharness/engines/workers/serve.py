"""The child's end of the pipe: JSON lines in and out, logits through a file that both have mapped.

    parent → child   {"do": "load", "driver": FILE, "options": {...}}
                     {"do": "map", "path": FILE}
                     {"do": "rows", "id": 7, "ids": [...], "first": 3, "chunk": 128}
                     {"do": "extend", "id": 8, "ids": [...], "fresh": true}
                     {"do": "free", "slot": 0}       the slot has been read
                     {"do": "stop", "id": 7}         no more rows of it, please
    child → parent   {"loaded": {...}, "version": 1}, {"mapped": true}
                     {"id": 7, "slot": 0, "start": 3, "rows": 125}, …, {"id": 7, "end": true}
                     {"error": TEXT, "kind": TYPE}   and "package", where one is missing
                     {"alive": true}                 every few seconds, from a thread of its own

The file has two slots of chunk × V float32; a full one is backpressure. End of input, or nobody
reading, ends the process. The parent starts it as ``python serve.py PARENT SECONDS``: its own
number, and how often it wants to hear that this process is alive.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any

VERSION = 1
SLOTS = 2


class Pipe:
    """Lines to the parent; a write that fails ends the process: nobody is there."""

    def __init__(self) -> None:
        # Engines print; what they print goes to the log.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def say(self, **message: Any) -> None:
        """Write one line."""
        line = json.dumps(message)
        with self._lock:
            try:
                self._out.write(line + "\n")
                self._out.flush()
            except (OSError, ValueError):
                os._exit(0)

    def keep_alive(self, seconds: float) -> None:
        """Say so every few seconds, from a thread: what holds up the interpreter shows."""
        while True:
            time.sleep(seconds)
            self.say(alive=True)


class Server:
    """One engine, asked by one parent."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.asked: queue.Queue[dict[str, Any]] = queue.Queue()
        self.free: queue.Queue[int] = queue.Queue()
        self.stopped = -1  # no rows of requests up to this number are wanted any more
        self.engine: Any = None
        self.slots: Any = None

    def read(self) -> None:
        """Take the parent's lines apart, in a thread of its own; their end ends the process."""
        for line in sys.stdin:
            message = json.loads(line)
            if message["do"] == "free":
                self.free.put(int(message["slot"]))
            elif message["do"] == "stop":
                self.stopped = max(self.stopped, int(message["id"]))
            else:
                self.asked.put(message)
        os._exit(0)

    def serve(self) -> None:
        """Answer until the input ends."""
        while True:
            message = self.asked.get()
            try:
                getattr(self, f"_{message['do']}")(message)
            except BaseException as error:
                said = {"error": str(error) or repr(error), "kind": type(error).__name__}
                if isinstance(error, ModuleNotFoundError) and error.name:
                    said["package"] = error.name.split(".")[0]
                self.pipe.say(**said)

    def _load(self, message: dict[str, Any]) -> None:
        spec = importlib.util.spec_from_file_location("evalharness_driver", message["driver"])
        assert spec is not None
        assert spec.loader is not None
        driver = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(driver)
        self.engine = driver.load(message["options"])
        about = {"vocabulary": self.engine.vocabulary, "python": sys.version.split()[0]}
        self.pipe.say(loaded=about | self.engine.info, version=VERSION)

    def _map(self, message: dict[str, Any]) -> None:
        import numpy as np

        shape = (SLOTS, self.engine.chunk, self.engine.vocabulary)
        self.slots = np.memmap(message["path"], np.float32, "r+", shape=shape)
        for slot in range(SLOTS):
            self.free.put(slot)
        self.pipe.say(mapped=True)

    def _rows(self, message: dict[str, Any]) -> None:
        number = int(message["id"])
        chunk = int(message["chunk"])
        for start, logits in self.engine.rows(message["ids"], int(message["first"]), chunk):
            if self.stopped >= number or not self._hand_over(number, start, logits):
                break
        self.pipe.say(id=number, end=True)

    def _extend(self, message: dict[str, Any]) -> None:
        number = int(message["id"])
        if message["fresh"]:
            self.engine.reset()
        logits = self.engine.extend(message["ids"], self.engine.chunk)
        self._hand_over(number, 0, logits)
        self.pipe.say(id=number, end=True)

    def _hand_over(self, number: int, start: int, logits: Any) -> bool:
        if logits.shape[1:] != self.slots.shape[2:] or len(logits) > self.slots.shape[1]:
            raise ValueError(
                f"logits of shape {logits.shape} do not fit {self.slots.shape[1]} rows of a "
                f"vocabulary of {self.slots.shape[2]}"
            )
        while True:
            try:
                slot = self.free.get(timeout=0.1)
                break
            except queue.Empty:
                if self.stopped >= number:
                    return False
        self.slots[slot, : len(logits)] = logits
        self.pipe.say(id=number, slot=slot, start=start, rows=len(logits))
        return True


def die_with_parent(parent: int) -> None:
    """Ask Linux to end this process when its parent dies; elsewhere the pipe's end does it."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that
            os._exit(0)


def main() -> None:
    """Serve the parent that started this process."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if p != here]  # its files are no packages
    for number in (signal.SIGINT, signal.SIGTERM):
        # Sent to the whole group, by Ctrl-C or timeout(1), they are the parent's to handle.
        signal.signal(number, signal.SIG_IGN)
    die_with_parent(int(sys.argv[1]))
    pipe = Pipe()
    server = Server(pipe)
    threading.Thread(target=server.read, daemon=True).start()
    threading.Thread(target=pipe.keep_alive, args=(float(sys.argv[2]),), daemon=True).start()
    server.serve()


if __name__ == "__main__":
    main()
