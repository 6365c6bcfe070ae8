"""What can go wrong, and the exit code each carries.

    EvalHarnessError            4   the run could not finish
    ├── InputError              2   the input is wrong; nothing was written
    ├── RunError                4   what is done is kept; the command that resumes is printed
    └── Interrupted           130   SIGINT; resumable

Every message names the file, the line and key where known, what was found, what was expected and
what to do. The command line prints the message and exits; no traceback reaches a user.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class EvalHarnessError(Exception):
    """Base of every error that is shown to a user as one message."""

    exit_code = 4


class InputError(EvalHarnessError):
    """The input is wrong. ``str()`` reads ``file:line: key: message. Remedy``."""

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.message, self.path, self.line, self.key, self.remedy = (
            message,
            None if path is None else str(path),
            line,
            key,
            remedy,
        )
        place = "" if path is None else f"{path}:{line}: " if line else f"{path}: "
        text = place + (f"{key}: " if key else "") + message
        super().__init__(text if not remedy else f"{text.rstrip('.')}. {remedy}")


class RunError(EvalHarnessError):
    """The run could not finish; what is recorded stays."""


class Interrupted(EvalHarnessError):  # noqa: N818 (it is no error)
    """The user interrupted the run; finished blocks are kept."""

    exit_code = 130


def nearest(word: str, known: Iterable[str], n: int = 3) -> str:
    """Return ``did you mean 'a' or 'b'?`` for the names nearest to ``word``, or ``""``."""
    close = difflib.get_close_matches(word, list(known), n=n, cutoff=0.5)
    close.sort(key=lambda name: not name.startswith(word))  # what was begun comes first
    return f"did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def plural(n: int, noun: str) -> str:
    """Return ``1 gate``, ``3 gates``, ``1,204 documents``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def short(value: object, most: int = 60) -> str:
    """Return ``repr(value)`` on one line of at most ``most`` characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        return "a number of thousands of digits"
    return text if len(text) <= most else text[: most - 1] + "…"
