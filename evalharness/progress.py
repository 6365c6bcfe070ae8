"""Progress on stderr: bars with rate and time left in a terminal, a line a step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
        self._bar.update(self._task, completed=done, total=total, description=label, rate=rate)


class Progress:
    """Shows what is being done; silent when ``quiet``, with details when ``verbose``."""

    def __init__(
        self, console: Console | None = None, quiet: bool = True, verbose: bool = False
    ) -> None:
        self.console = console or Console(stderr=True)
        self.quiet, self.verbose = quiet, verbose
        self._live = not quiet and self.console.is_terminal

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """A step without a known length; what is yielded renames it."""
        started = time.monotonic()
        if self._live:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            with Bar(*columns, console=self.console, transient=True) as bar:
                task = bar.add_task(text)
                yield lambda said: bar.update(task, description=said)
        else:
            yield lambda said: None
        self._line(f"{text}: {time.monotonic() - started:.1f} s")

    @contextmanager
    def count(self, text: str, total: int | None, unit: str) -> Iterator[Advance]:
        """A step of ``total`` units."""
        started = time.monotonic()
        if self._live:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            with Bar(*columns, console=self.console, transient=True) as bar:
                yield Advance(bar, bar.add_task(text, total=total, rate=""))
        else:
            yield Advance(None, TaskID(0))
        self._line(f"{text}: {time.monotonic() - started:.1f} s")

    def tell(self, text: str) -> None:
        """Say what a user should know of while the work goes on."""
        self._line(text)

    def detail(self, text: str) -> None:
        """Say what only ``-v`` asks for."""
        if self.verbose:
            self.console.print(text, highlight=False, style="dim", soft_wrap=True)

    def _line(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, highlight=False, style="dim")
