"""What differs between two sets of inputs is named, with both values where they are short."""

from __future__ import annotations

from typing import Any

import pytest

from evalharness.run.differences import differences


@pytest.mark.parametrize(
    ("begun", "now", "said"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1, "b": 2}, {"a": 1}, []),  # only what is asked about
        (
            {"suite": {"window": {"tokens": 64}}},
            {"suite": {"window": {"tokens": 32}}},
            ["suite.window.tokens (64, now 32)"],
        ),
        (
            {"weights": ["a" * 64, "b"]},
            {"weights": ["c" * 64, "b"]},
            ["weights.reference has changed"],
        ),
        ({"weights": ["a", "b"]}, {"weights": ["a", "c"]}, ["weights.candidate ('b', now 'c')"]),
        ({}, {"versions": {"torch": "2"}}, ["versions (none, now {'torch': '2'})"]),
        ({"v": {"old": "1"}}, {"v": {}}, ["v.old ('1', now none)"]),
        ({"v": 1}, {"v": True}, ["v (1, now True)"]),
        ({"l": [1, 2, 3]}, {"l": [1, 2]}, ["l ([1, 2, 3], now [1, 2])"]),
    ],
)
def test_each_difference_is_named(
    begun: dict[str, Any], now: dict[str, Any], said: list[str]
) -> None:
    assert differences(begun, now) == said


def test_of_many_the_first_are_named() -> None:
    """The message stays readable."""
    found = differences({}, {f"k{i}": i for i in range(9)})
    assert len(found) == 6
    assert found[-1] == "and 4 more"
