"""Progress on stderr: bars with rate and time left in a terminal, a line a step elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from evalharness.spec.visible_text import printable


class _Stderr(Console):
    """Stderr, of whose text nothing is markup and whose reader may leave."""

    def __init__(self) -> None:
        super().__init__(stderr=True, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        """Go on: rich itself would exit with 1, which here means that a gate failed."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


_DESCRIPTION = TextColumn("{task.description}", markup=False)


class Advance:
    """Moves a bar: call it with how much more is done, or `report` the state of a whole."""

    def __init__(self, bar: Bar | None, task: TaskID) -> None:
        self._bar, self._task, self._done, self._since = bar, task, 0, time.monotonic()

    def __call__(self, amount: int) -> None:
        self._done += amount
        self._update(self._done, None, None)

    def report(self, done: int, total: int, label: str) -> None:
        """``done`` of ``total`` of ``label``."""
        self._update(done, total, label)

    def _update(self, done: int, total: int | None, label: str | None) -> None:
        if self._bar is None:
            return
        rate = f"{done / max(1e-9, time.monotonic() - self._since):,.0f}/s" if done else ""
        label = None if label is None else printable(label)
        self._bar.update(self._task, completed=done, total=total, description=label, rate=rate)


class Progress:
    """Shows what is being done; silent when ``quiet``, with details when ``verbose``."""

    def __init__(
        self, console: Console | None = None, quiet: bool = True, verbose: bool = False
    ) -> None:
        self.console = console or _Stderr()
        self.quiet, self.verbose = quiet, verbose
        self._live = not quiet and self.console.is_terminal

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """A step without a known length; what is yielded renames it."""
        started = time.monotonic()
        if self._live:
            columns = (
                SpinnerColumn(),
                _DESCRIPTION,
                TimeElapsedColumn(),
            )
            with Bar(*columns, console=self.console, transient=True) as bar:
                task = bar.add_task(printable(text))
                yield lambda said: bar.update(task, description=printable(said))
        else:
            yield lambda said: None
        self._line(f"{text}: {time.monotonic() - started:.1f} s")

    @contextmanager
    def count(self, text: str, total: int | None, unit: str) -> Iterator[Advance]:
        """A step of ``total`` units."""
        started = time.monotonic()
        if self._live:
            columns = (
                _DESCRIPTION,
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit, markup=False),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            with Bar(*columns, console=self.console, transient=True) as bar:
                yield Advance(bar, bar.add_task(printable(text), total=total, rate=""))
        else:
            yield Advance(None, TaskID(0))
        self._line(f"{text}: {time.monotonic() - started:.1f} s")

    def tell(self, text: str) -> None:
        """Say what a user should know of while the work goes on."""
        self._line(text)

    def still(self, text: str) -> None:
        """Say that a step goes on, where nothing moves to show it."""
        if not self._live:
            self._line(text)

    def detail(self, text: str) -> None:
        """Say what only ``-v`` asks for."""
        if self.verbose:
            self._print(text, soft_wrap=True)

    def _line(self, text: str) -> None:
        if not self.quiet:
            self._print(text)

    def _print(self, text: str, soft_wrap: bool = False) -> None:
        with suppress(OSError):  # a full disk under a log stops no comparison
            self.console.print(
                printable(text), highlight=False, markup=False, style="dim", soft_wrap=soft_wrap
            )
