"""Every point of a command: what a kill or a loss of power leaves there, taken up to its end."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.crash.commands import Command, Left
from tests.crash.damage import files_of
from tests.crash.disk import Disk
from tests.crash.forks import Ended, forked, typed

KILL = "kill"


@dataclass(frozen=True)
class Point:
    """A command cut off before one operation."""

    number: int
    operation: str
    how: str  # KILL or a loss of power
    wrong: str = ""  # what is wrong with it; "unusable: …" or "different: …"


class Sweep:
    """The points of one command, each in a folder below ``folder``."""

    def __init__(self, command: Command, project: Path, folder: Path) -> None:
        self.command, self.project, self.folder = command, project, folder
        whole = folder / "whole"
        command.begins(project, whole)
        states = [] if command.before is None else [command.before(whole)]
        ended = command.run(command.typed(project), whole)
        assert ended.code in (0, 1, 3), ended.said
        self.code, self.left = ended.code, command.left(whole)
        if command.before is not None:
            states.append(command.before(whole))
        self.states = states  # as before and as after, which are all that may be read

    def points(
        self,
        losses: tuple[str, ...] = (),
        every: int = 1,
        twice: bool = False,
        first: int = 0,
    ) -> Iterator[Point]:
        """Each ``every``-th operation from ``first`` on, killed and with these losses of power.

        ``twice``: what takes it up is killed as well, at an operation drawn at random.
        """
        chance = random.Random(every)
        operations = self._traced(losses, every, first)
        for number, operation in enumerate(operations):
            for how in (KILL, *losses):
                place = self.folder / f"{number}-{how}"
                if place.exists():
                    if twice:
                        self._killed_again(place, chance.randrange(len(operations)))
                    yield Point(number, operation, how, self.wrong_with(place))
                    shutil.rmtree(place)

    def kept(self, every: int = 9) -> list[Path]:
        """What a kill leaves before each ``every``-th operation, where a file is there."""
        number = len(self._traced((), every))
        places = (self.folder / f"{n}-{KILL}" for n in range(0, number, every))
        return [place for place in places if files_of(place)]

    def _traced(self, losses: tuple[str, ...], every: int, first: int = 0) -> list[str]:
        """Run the command once and keep what is left before each operation; returns those."""
        traced = self.folder / "traced"
        self.command.begins(self.project, traced)

        def work() -> list[str]:
            operations: list[str] = []

            def before(operation: str) -> None:
                number = len(operations)
                operations.append(operation)
                if number % every == first:
                    disk.killed(self.folder / f"{number}-{KILL}")
                    for loss in losses:
                        disk.powerless(self.folder / f"{number}-{loss}", loss, number)

            disk = Disk(traced, before)
            with disk.watched(), suppress(SystemExit):
                typed(*self.command.typed(self.project))()
            return operations

        ended = forked(work, traced, EVALHARNESS_CACHE=str(traced / "cache"))
        assert ended.value is not None, ended.said
        shutil.rmtree(traced)
        return list(ended.value)

    def _killed_again(self, place: Path, at: int) -> None:
        """Take it up, and end that process before its operation number ``at``."""
        arguments = self.command.again(self.project, place)
        if arguments is None:
            return

        def work() -> None:
            met = itertools.count()

            def before(operation: str) -> None:
                if next(met) == at:
                    os._exit(137)

            with Disk(place, before).watched():
                typed(*arguments)()

        forked(work, place, EVALHARNESS_CACHE=str(place / "cache"))

    def wrong_with(self, place: Path) -> str:
        """What is wrong with what is left at ``place``, once it is taken up; nothing: empty."""
        try:
            read = self.command.before
            if read is not None and read(place) not in self.states:
                return "different: neither as before nor as after"
            arguments = self.command.again(self.project, place)
            ended = Ended(self.code, "")
            if arguments is not None:
                ended = self.command.run(arguments, place)
            if ended.code != self.code:
                return f"unusable: exit {ended.code}: {ended.said.strip()[-1500:]}"
            return differing(self.left, self.command.left(place))
        except Exception as error:
            return f"unusable: {type(error).__name__}: {error}"


def differing(expected: Left, found: Left, path: str = "") -> str:
    """Where two of them differ first."""
    if expected == found:
        return ""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}):
            a, b = expected.get(key), found.get(key)
            if a != b:
                return differing(a, b, f"{path}.{key}")  # type: ignore[arg-type]
    return f"different: {path}: {str(expected)[:200]} against {str(found)[:200]}"
