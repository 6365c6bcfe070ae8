"""Everything that the commands print goes through here: escaped, and to a reader that may leave.

A command ends with its own exit code even where nobody reads what it says, as in
``evalharness compare … | head``; a broken pipe would be exit 1, which means that a gate failed.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich.console import Console, RenderableType

from evalharness.errors import RunError
from evalharness.spec.visible_text import printable


def open_missing_streams() -> None:
    """Give a closed stdout or stderr (``>&-``) somewhere to go: a file opened later would be it.

    What an encoding lacks is written as an escape.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def reader_may_leave(*, needed: bool = True) -> Iterator[None]:
    """Print inside; once nobody reads any more, the rest goes nowhere and all else goes on.

    Parameters
    ----------
    needed : whether what is printed is the command's whole outcome. A verdict is not: it is in the
        exit code and in the run.

    Raises
    ------
    RunError : what is needed cannot be written, as on a full disk.

    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere(sys.stdout)
    except OSError as error:
        _to_nowhere(sys.stdout)
        problem = f"standard output cannot be written ({error.strerror})"
        if needed:
            raise RunError(problem) from None
        complain(problem)


def say(*texts: object) -> None:
    """Print lines on stdout, escaped."""
    with reader_may_leave():
        for text in texts:
            for line in str(text).split("\n"):
                print(printable(line))


def emit(text: str) -> None:
    """Print JSON or YAML on stdout as it is: its own syntax escapes what needs to be."""
    with reader_may_leave():
        print(text)


def complain(text: object) -> None:
    """Print one line on stderr, escaped."""
    with suppress(OSError):
        print(printable(str(text)), file=sys.stderr, flush=True)


def show(*parts: RenderableType) -> None:
    """Print tables and lines on stdout; nothing in them is markup."""
    from evalharness.report.terminal import plain_text

    with reader_may_leave():
        console = PipeConsole(width=100)
        for part in parts:
            if isinstance(part, str):
                console.print(printable(part), soft_wrap=True)
            elif console.is_terminal:
                console.print(part)
            else:
                print(plain_text(part, console.width), end="")


class PipeConsole(Console):
    """A console without markup that says that its pipe is broken."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Leave it to whoever prints; rich itself would exit with 1."""
        raise BrokenPipeError


def _to_nowhere(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
