"""The search alone, on functions that say what passes."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evalharness.bisect.search import BudgetSpent, TrialLog, read_log, smallest_set

NAMES = [f"m{i}" for i in range(20)]


@pytest.mark.parametrize("needed", [(), ("m0",), ("m19",), ("m3", "m11"), tuple(NAMES)])
def test_exactly_the_modules_that_are_needed_are_found(needed: tuple[str, ...]) -> None:
    """Wherever they stand in the order, when restoring more never hurts."""
    found = smallest_set(NAMES, lambda s: s >= set(needed))
    assert found.restored is not None
    assert set(found.restored) == set(needed)
    assert found.minimal


def test_a_set_that_more_modules_would_spoil_is_still_one_that_passes() -> None:
    """Random functions that are not monotone: whatever is returned passes, and is 1-minimal."""
    for seed in range(30):
        rng = random.Random(seed)
        passing = {frozenset(NAMES)} | {
            frozenset(rng.sample(NAMES, rng.randint(3, 15))) for _ in range(200)
        }

        def passes(s: frozenset[str], passing: Any = passing) -> bool:
            return any(p <= s for p in passing) and len(s) % 7 != 5

        found = smallest_set(NAMES, passes)
        assert found.restored is None or passes(frozenset(found.restored))
        if found.minimal and found.restored:
            for name in found.restored:
                rest = frozenset(found.restored) - {name}
                assert not rest or not passes(rest)


def test_nothing_passes_and_nothing_is_found() -> None:
    assert smallest_set(NAMES, lambda s: False).restored is None


def test_a_spent_budget_gives_the_best_set_so_far_and_says_so() -> None:
    count = itertools.count()

    def passes(s: frozenset[str]) -> bool:
        if next(count) == 8:
            raise BudgetSpent
        return s >= {"m9"}

    found = smallest_set(NAMES, passes)
    assert found.restored is not None
    assert "m9" in found.restored
    assert not found.minimal
    assert found.needed < len(found.restored)


@pytest.mark.parametrize(("needed", "most"), [(range(20), 28), ([19], 20), ([0, 1, 2], 8)])
def test_each_member_costs_an_evaluation_where_all_are_needed(needed: Any, most: int) -> None:
    """And much less where most can go."""
    wanted, calls = {NAMES[i] for i in needed}, itertools.count()

    def passes(s: frozenset[str]) -> bool:
        next(calls)
        return s >= wanted

    assert set(smallest_set(NAMES, passes).restored or ()) == wanted
    assert next(calls) <= most


def test_a_member_is_needed_only_where_the_final_set_was_seen_to_fail_without_it() -> None:
    """m1 is needed only beside m3, which goes later than m1 is tried: it is tried again."""
    names = [f"m{i}" for i in range(6)]
    asked: list[frozenset[str]] = []

    def passes(s: frozenset[str]) -> bool:
        asked.append(s)
        return {"m0"} <= s and (("m1" in s) == ("m3" in s) or len(s) == 6)

    found = smallest_set(names, passes)
    assert found.minimal
    assert found.restored == ("m0",)


class Tries:
    """What passes with ``c`` restored, counted."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def attempt(self, names: Any, beside: Any = None) -> Any:
        self.asked.append(list(names))
        verdict = "PASS" if "c" in names else "FAIL"
        return SimpleNamespace(decision=SimpleNamespace(verdict=verdict, gates=[]), documents=1)


@pytest.mark.parametrize("harm", ["cut off", "flipped", "verdict", "from an older version"])
def test_a_search_goes_on_from_the_last_whole_line_of_its_log(tmp_path: Path, harm: str) -> None:
    """What follows a damaged line is tried again, and comes out the same."""
    path, names = tmp_path / "log", ["a", "b", "c"]
    first = TrialLog(path, "k", Tries(), None)
    expected = first.search(names, lambda _: None)
    lines = path.read_text().splitlines()
    assert len(lines) == len(read_log(path)) == len(first.known) > 2
    third = {
        "cut off": lines[2][:20],
        "flipped": lines[2].replace("restored", "restorec"),
        "verdict": lines[2].replace("true", "false").replace("FAIL", "PASS"),
        "from an older version": '{"key": "k", "restored": ["b"], "passed": true, "beside": null}',
    }[harm]
    if harm == "verdict" and third == lines[2]:
        third = lines[2].replace("false", "true")
    path.write_text("\n".join([*lines[:2], third, *lines[3:]]))
    assert len(read_log(path)) == 2
    tries = Tries()
    again = TrialLog(path, "k", tries, None)
    assert again.search(names, lambda _: None) == expected
    assert len(tries.asked) == len(lines) - 2
    rows = [{k: v for k, v in r.items() if k not in ("seconds", "sha256")} for r in read_log(path)]
    assert [r["restored"] for r in rows] == [json.loads(line)["restored"] for line in lines]
