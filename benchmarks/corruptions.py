"""Claim: no damage to a file of a run or of the cache gives another number without a word.

Comparisons of tiny random models are cut off at random operations, finished, or done with a cache;
then one file has a bit flipped, a stretch zeroed, its end cut off, or is deleted. An unfinished run
is taken up, the cache is used by another comparison, a finished run is decided and shown again.
What comes out must be what undamaged files give, or be refused with a message (exit 2 or 4, and no
traceback).

    python benchmarks/corruptions.py [--number 200] [--seed 0]

Half of them are of unfinished runs, a quarter each of the cache and of finished ones. Exits 1 if a
number changed in silence, or a traceback was shown.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.crash.commands import COMMANDS, Command, project, run_left
from tests.crash.damage import KINDS, damage, files_of
from tests.crash.forks import Ended, forked, warm
from tests.crash.sweep import Sweep

SHOWN = ("verdict", "exit_code", "metrics", "gates", "layers", "tasks", "anomalies")


class Unfinished:
    """Runs that were cut off, taken up."""

    what = "an unfinished run"

    def __init__(self, root: Path) -> None:
        folder = root / "unfinished"
        folder.mkdir()
        self.sweep = Sweep(COMMANDS["compare"], root / "project", folder)
        self.command: Command = self.sweep.command
        self.project, self.number = root / "project", 0
        self.states = self.sweep.kept()

    def place(self, chance: random.Random) -> Path:
        """A copy of one of them; its files are those that may be damaged."""
        self.number += 1
        to = self.sweep.folder / f"copy-{self.number}"
        shutil.copytree(chance.choice(self.states), to)
        return to

    def outcome(self, place: Path) -> tuple[Ended, bool]:
        """How taking it up ends, and whether what comes out is as it should be."""
        again = self.command.again(self.project, place)
        if again is None:
            again = ["gate", "run", "--write"]
        ended = self.command.run(again, place)
        if ended.code != self.sweep.code:
            return ended, False
        return ended, run_left(place / "run") == self.sweep.left


class Cache:
    """What is kept of a reference, used by another comparison of the same pair."""

    what = "the cache"

    def __init__(self, root: Path) -> None:
        self.project, self.root, self.number = root / "project", root / "cached", 0
        self.command = COMMANDS["compare"]
        self.root.mkdir()
        self.first = self.root / "first"
        self.first.mkdir()
        self.code = self._compare(self.first).code
        self.left = run_left(self.first / "run")

    def _compare(self, place: Path) -> Ended:
        return self.command.run([*self.command.typed(self.project), "--cache"], place)

    def place(self, chance: random.Random) -> Path:
        """A copy of the cache."""
        self.number += 1
        to = self.root / f"copy-{self.number}"
        shutil.copytree(self.first / "cache", to / "cache")
        return to

    def outcome(self, place: Path) -> tuple[Ended, bool]:
        """How the comparison ends, and whether its result is the first one's."""
        ended = self._compare(place)
        if ended.code != self.code:
            return ended, False
        return ended, run_left(place / "run") == self.left


class Finished:
    """A finished run, decided again and shown."""

    what = "a finished run"

    def __init__(self, root: Path) -> None:
        self.command, self.project = COMMANDS["gate"], root / "project"
        self.root, self.number = root / "finished", 0
        self.root.mkdir()
        self.command.begins(self.project, self.root / "first")
        self.expected = [self._numbers(e) for e in self._asked(self._copy())]

    def _copy(self) -> Path:
        self.number += 1
        to = self.root / f"copy-{self.number}"
        shutil.copytree(self.root / "first", to)
        return to

    def place(self, chance: random.Random) -> Path:
        """A copy of it."""
        return self._copy()

    def _asked(self, place: Path) -> list[Ended]:
        asked = (["show", "run", "--format", "json"], ["gate", "run", "--format", "json"])
        return [self.command.run(arguments, place) for arguments in asked]

    def _numbers(self, ended: Ended) -> Any:
        text = ended.said[ended.said.find("{") :]
        try:
            data, _ = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return None
        return ended.code, {k: data.get(k) for k in SHOWN}

    def outcome(self, place: Path) -> tuple[Ended, bool]:
        """How the worse of both ends, and whether all numbers are as they should be."""
        found = self._asked(place)
        for ended, expected in zip(found, self.expected, strict=True):
            if self._numbers(ended) != expected:
                return ended, False
        return found[-1], True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warm()
    chance = random.Random(options.seed)
    table: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="crash-") as name:
        root = Path(name)
        (root / "project").mkdir()
        made = forked(lambda: project(root / "project"), root)
        assert made.code == 0, made.said
        kinds = [Unfinished(root), Cache(root), Finished(root)]
        for number in range(options.number):
            kind = kinds[(0, 1, 0, 2)[number % 4]]
            place = kind.place(chance)
            done = damage(chance.choice(files_of(place)), chance.choice(KINDS), chance)
            ended, equal = kind.outcome(place)
            refused = ended.code in (2, 4) and "error: " in ended.said
            how = "equal" if equal else "refused" if refused else "SILENT"
            if "Traceback" in ended.said or "unexpected" in ended.said:
                how = "TRACEBACK"
            table[kind.what, how] += 1
            if how.isupper():
                print(
                    f"{kind.what}, {done}: {how}: exit {ended.code}\n{ended.said[-1500:]}",
                    flush=True,
                )
            shutil.rmtree(place)
    print(f"{'damage to':20} {'equal':>7} {'refused':>8} {'silent':>7} {'traceback':>10}")
    for kind in kinds:
        counts = [table[kind.what, how] for how in ("equal", "refused", "SILENT", "TRACEBACK")]
        print(f"{kind.what:20} {counts[0]:7} {counts[1]:8} {counts[2]:7} {counts[3]:10}")
    return int(any(how.isupper() for _, how in table))


if __name__ == "__main__":
    sys.exit(main())
