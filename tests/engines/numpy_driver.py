"""A driver as a real one is, of the standard library and numpy: a toy model, and its faults.

The logits after a token follow from it and the one before it, so that positions depend on what
precedes them. ``fault`` says what goes wrong, at token ``at`` of a sequence.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

VOCABULARY = 300
CONTEXT = 256


@functools.cache
def _pairs(seed: int, vocabulary: int) -> Any:
    return np.random.default_rng(seed).normal(size=(2, VOCABULARY, vocabulary))


def table(ids: list[int], seed: int = 0, vocabulary: int = VOCABULARY) -> Any:
    """Logits (T, V) of every position of ``ids``."""
    one, two = _pairs(seed, vocabulary)
    before = [0, *ids[:-1]]
    return np.stack([2 * (one[i] + two[j]) for i, j in zip(ids, before)]).astype(np.float32)


def say(text: str) -> None:
    """Into the log, as engines do."""
    print(text, file=sys.stderr, flush=True)


def leave() -> None:
    """End with a code of its own."""
    say("the toy leaves")
    os._exit(7)


def die() -> None:
    """As when memory is out."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    """As a debugger stops it."""
    os.kill(os.getpid(), signal.SIGSTOP)


def fail() -> None:
    """Raise."""
    say("the toy is about to fail")
    raise ValueError("the toy failed")


def wait() -> None:
    """Hang, and hold nothing: the sign of life goes on."""
    time.sleep(1000)


def hold() -> None:
    """Hang, and hold the interpreter."""
    ctypes.PyDLL(None).sleep(1000)


def work() -> None:
    """Hold the interpreter for more than a second, at work."""
    end = time.monotonic() + 1.2
    sys.setswitchinterval(1000)
    while time.monotonic() < end:
        pass
    sys.setswitchinterval(0.005)


def chatter() -> None:
    """Print what the protocol has no place for."""
    print('{"id": 1, "end": true}', flush=True)
    os.write(1, b"no JSON\n")


FAULTS: dict[str, Callable[[], None]] = {
    f.__name__: f for f in (leave, die, stop, fail, wait, hold, work, chatter)
}


class Model:
    """The toy."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.fault = options.get("fault", "")
        self.at = int(options.get("at", 0))
        self.chunk = int(options["chunk"])
        self.vocabulary = options.get("vocabulary", VOCABULARY)
        self.info = {"package": "toy 1", "trained_context": CONTEXT, "chunk": self.chunk}
        self.held: list[int] = []
        if self.fault == "missing":
            raise LookupError("the toy is not installed in this Python. Run: pip install toy")
        if self.fault == "import":
            import no_such_package_of_a_toy  # noqa: F401
        if self.fault == "unloadable":
            raise ValueError("no such file")
        if options.get("when") == "loading":
            FAULTS[self.fault]()

    def rows(self, ids: list[int], first: int, chunk: int) -> Iterator[tuple[int, Any]]:
        """(start, logits) of the positions from ``first`` on."""
        found = self._table(ids)
        for start in range(0, len(ids), chunk):
            end = min(start + chunk, len(ids))
            skipped = min(max(first - start, 0), end - start)
            if start <= self.at < end:
                if self.fault in FAULTS:
                    FAULTS[self.fault]()
                if self.fault == "short":
                    return
                if self.fault == "start":
                    start += 1
                if self.fault == "fewer":
                    end -= 1
                if self.fault == "flat":
                    yield start, found[start + skipped : end, :1]
            time.sleep(float(self.options.get("pause", 0)))
            if start + skipped < end:
                yield start + skipped, found[start + skipped : end]

    def reset(self) -> None:
        """Forget the sequence."""
        self.held = []

    def extend(self, ids: list[int], chunk: int) -> Any:
        """Logits (1, V) after ``ids``."""
        self.held += ids
        if len(self.held) > self.at and self.fault in FAULTS:
            FAULTS[self.fault]()
        return self._table(self.held)[-1:]

    def _table(self, ids: list[int]) -> Any:
        narrow = {"vocabulary": VOCABULARY - 1}.get(self.fault, VOCABULARY)
        return table(ids, int(self.options.get("seed", 0)), narrow)


def load(options: dict[str, Any]) -> Model:
    """Load the toy."""
    if options.get("when") == "importing":
        FAULTS[options["fault"]]()
    return Model(options)
