"""Damage to an unfinished run is measured again, or refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from evalharness.errors import InputError
from tests.crash.damage import KINDS, damage, files_of
from tests.crash.test_run_directory import content, cut_off, record


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_gives_another_result(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    places = [p for how, p in cut_off(record, root, tmp_path / "places") if how.startswith("kill")]
    expected = content(root)
    chance = random.Random(kind)
    refused = 0
    for place in places:
        if not (found := files_of(place)):
            continue
        done = damage(chance.choice(found), kind, chance)
        try:
            record(place)
            assert content(place) == expected, done
        except InputError:
            refused += 1
    assert refused < len(places)  # only the manifest cannot be made anew
