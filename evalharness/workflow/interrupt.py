"""How a run is cut short, by a signal or a fault, and is told how to go on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evalharness.errors import Interrupted, RunError
from evalharness.run.command import Command
from evalharness.run.manifest import MANIFEST


@contextmanager
def resumable(run: Path, command: Command) -> Iterator[None]:
    """Whatever stops the work inside says that ``command`` resumes it, once there is a ``run``."""
    begun = f"What was recorded is kept. Resume with: {command}"
    try:
        yield
    except RunError as error:
        if not (run / MANIFEST).exists():
            raise
        raise RunError(f"{str(error).rstrip('.')}. {begun}") from error
    except KeyboardInterrupt:
        if not (run / MANIFEST).exists():
            raise
        raise Interrupted(f"interrupted. {begun}") from None


@contextmanager
def finishing_blocks() -> Iterator[Callable[[], None]]:
    """The first Ctrl-C or SIGTERM lets the block in hand finish; a second one stops at once.

    What is yielded is called between blocks, and raises `KeyboardInterrupt` if one was asked for.
    """
    asked = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("finishing this block; Ctrl-C again to stop at once", file=sys.stderr)

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in previous:
            signal.signal(number, on_signal)
    except ValueError:  # not the main thread: whoever runs us handles signals
        yield check
        return
    try:
        yield check
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
