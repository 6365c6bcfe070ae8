"""How a run ends before its end: a signal, a fault; and the command that takes it up again."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evalharness.errors import Interrupted, RunError
from evalharness.run.directory import MANIFEST

_PLACES = ("--out", "--resume")  # options that name the run


def resume_command(command: str, run: Path) -> str:
    """The command that takes ``run`` up again, from the one that began it."""
    words = iter(shlex.split(command))
    kept = []
    for word in words:
        if word in _PLACES:
            next(words, None)
        elif not word.startswith(tuple(f"{option}=" for option in _PLACES)):
            kept.append(word)
    return shlex.join([*kept, "--resume", str(run)])


@contextmanager
def resumable(command: str, run: Path, folder: Path | None = None) -> Iterator[None]:
    """Whatever stops the work inside says how to resume, once there is a run to resume.

    ``folder``: of the runs of several candidates, this one among them.
    """
    begun = f"What was recorded is kept. Resume with: {resume_command(command, folder or run)}"
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
    """The first Ctrl-C lets the block in hand finish; a second one stops at once.

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
