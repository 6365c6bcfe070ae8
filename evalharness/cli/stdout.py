"""Standard output whose reader may leave early, as in ``evalharness compare … | head``.

Without this the exit code would be that of a broken pipe, and not the verdict's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print inside; once nobody reads any more, the rest goes nowhere and all else goes on."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class PipeConsole(Console):
    """A console that says that its pipe is broken; rich itself would exit with 1: a FAIL."""

    def on_broken_pipe(self) -> None:
        """Leave it to whoever prints."""
        raise BrokenPipeError
