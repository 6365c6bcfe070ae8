"""The smallest set of modules to restore so that something passes: gallop, bisect, delete.

Nothing is assumed of what passes: a larger set may fail where a smaller one passes. The search only
ever holds on to a set that was seen to pass. It takes the modules in order of suspicion, doubles
their number until the set passes, bisects between the last two sizes, and then deletes members, the
least suspect first, in runs that double while they can go and halve when they cannot. A member
counts as needed once the present set without it was seen to fail, so that what is returned is delta
debugging's 1-minimal set (Zeller & Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
TSE 2002). Where all n members are needed this takes n evaluations, where m of n are, m log n.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evalharness.errors import plural
from evalharness.gates import Decision
from evalharness.run.files import write_text

Passes = Callable[[frozenset[str]], bool]


@dataclass(frozen=True)
class Found:
    """A set that passes; None: not even all of them do. ``minimal``: nothing in it can go.

    ``needed``: members without which alone the set was seen not to pass; all, where it is minimal.
    """

    restored: tuple[str, ...] | None
    minimal: bool
    needed: int = 0


class BudgetSpent(Exception):  # noqa: N818
    """No further evaluation may be made."""


def smallest_set(ordered: Sequence[str], passes: Passes) -> Found:
    """Search the members of ``ordered``, the most suspect first.

    ``passes`` may raise `BudgetSpent`: the best set known by then is returned, or None.
    """
    best: tuple[str, ...] | None = None
    known: dict[frozenset[str], bool] = {}

    def ask(members: Sequence[str]) -> bool:
        nonlocal best
        key = frozenset(members)
        if key not in known:
            known[key] = passes(key)
        if known[key] and (best is None or len(members) < len(best)):
            best = tuple(members)
        return known[key]

    try:
        if ask(()):
            return Found((), True)
        size = _prefix(ordered, ask)
        if size is None:
            return Found(None, False)
        _delete(list(ordered[:size]), ask)
    except BudgetSpent:
        return Found(best, False, _needed(best, known))
    return Found(best, True, len(best or ()))


def _needed(best: tuple[str, ...] | None, known: dict[frozenset[str], bool]) -> int:
    every = frozenset(best or ())
    return sum(known.get(every - {member}) is False for member in every)


def _prefix(ordered: Sequence[str], ask: Callable[[Sequence[str]], bool]) -> int | None:
    """The length of a prefix that passes while the one shorter by one does not."""
    fails, size = 0, 1
    while size < len(ordered) and not ask(ordered[:size]):
        fails, size = size, 2 * size
    size = min(size, len(ordered))
    if not ordered or not ask(ordered[:size]):
        return None
    while size - fails > 1:
        middle = (size + fails) // 2
        if ask(ordered[:middle]):
            size = middle
        else:
            fails = middle
    return size


def _delete(members: list[str], ask: Callable[[Sequence[str]], bool]) -> list[str]:
    """Leave out runs of members, the least suspect first, until no single one can go."""
    needed: set[str] = set()  # shown so against the present members
    while True:
        end, run = len(members), 1
        while end > 0:
            start = max(0, end - run)
            gone = members[start:end]
            rest = members[:start] + members[end:]
            if run == 1 and gone[0] in needed:
                end = start
                continue
            # The empty set is known to fail.
            if rest and ask(rest):
                members, end, run = rest, start, 2 * run
                needed = set()
            elif run > 1:
                run //= 2
            else:
                needed.add(gone[0])
                end = start
        if needed >= set(members):
            return members


class Outcome(Protocol):
    """What became of a set."""

    @property
    def decision(self) -> Decision:
        """The policy's verdict."""

    @property
    def documents(self) -> int:
        """How many it took."""


class Tries(Protocol):
    """What tries a set, such as `bisect.trials.Trials`."""

    def attempt(self, names: Iterable[str], beside: Iterable[str] | None = None) -> Outcome:
        """The policy with ``names`` restored; ``beside``: a set of one more, which passes."""


class TrialLog:
    """Decides sets by trials, each written down before the next; what is written is not redone."""

    def __init__(self, path: Path, key: str, trials: Tries, budget: int | None) -> None:
        self.path, self.key, self.trials, self.budget = path, key, trials, budget
        self.known: dict[frozenset[str], bool] = {}
        self.numbers: dict[frozenset[str], int] = {}  # lines of the log, from 1
        self.lines = 0
        whole = read_log(path)
        if path.is_file() and len(path.read_text("utf-8", "replace").splitlines()) != len(whole):
            # Cut off or damaged: what follows was tried after it, and is tried again.
            write_text(path, "".join(json.dumps(row) + "\n" for row in whole))
        for row in whole:
            self.lines += 1
            if row["key"] == key:
                self._know(frozenset(row["restored"]), bool(row["passed"]))
        self.tell: Any = lambda text: None

    def search(self, ordered: Sequence[str], tell: Any) -> Found:
        """The smallest set; at most ``budget`` evaluations are made in all."""
        self.tell = tell
        return smallest_set(ordered, self.passes)

    def passes(self, names: frozenset[str]) -> bool:
        """Whether the policy passes with ``names`` restored."""
        if names in self.known:
            return self.known[names]
        if self.budget is not None and len(self.known) >= self.budget:
            raise BudgetSpent
        self.tell(f"evaluation {len(self.known) + 1}: {plural(len(names), 'module')} restored")
        started = time.perf_counter()
        # By the log alone, so that a search that was interrupted goes on to the same answer.
        larger = [
            s
            for s, passed in self.known.items()
            if passed and s > names and len(s) == len(names) + 1
        ]
        beside = min(larger, key=sorted, default=None)
        tried = self.trials.attempt(sorted(names), beside)
        decision = tried.decision
        passed = decision.verdict == "PASS"
        row = {
            "key": self.key,
            "restored": sorted(names),
            "beside": None if beside is None else self.numbers[beside],
            "passed": passed,
            "verdict": decision.verdict,
            "documents": tried.documents,
            "gates": [
                {"id": g.id, "verdict": g.verdict, "observed": g.observed, "bound": g.bound}
                for g in decision.gates
            ],
            "seconds": round(time.perf_counter() - started, 3),
        }
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "sha256": _digest(row)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines += 1
        self._know(names, passed)
        return passed

    def in_the_way(self) -> str:
        """What did not pass with the largest set that was tried, in words."""
        own = [row for row in read_log(self.path) if row["key"] == self.key]
        last = max(own, key=lambda row: len(row["restored"]), default=None)
        if last is None:
            return ""
        broken = [f"{g['id']} {g['verdict']}" for g in last["gates"] if g["verdict"] != "PASS"]
        return f"{', '.join(broken)} on {plural(last['documents'], 'document')}" if broken else ""

    def _know(self, names: frozenset[str], passed: bool) -> None:
        self.known[names] = passed
        self.numbers[names] = self.lines


def read_log(path: Path) -> list[dict[str, Any]]:
    """The evaluations of a log, in order, up to the first line that is cut off or damaged."""
    found: list[dict[str, Any]] = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or row.get("sha256") != _digest(row):
            break
        found.append(row)
    return found


def _digest(row: dict[str, Any]) -> str:
    text = json.dumps({k: v for k, v in row.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
