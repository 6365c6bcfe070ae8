"""Milliseconds and tokens a second of each side, by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from evalharness.metrics import Evidence
from evalharness.results.speed import speed
from evalharness.run.directory import InMemory
from evalharness.testing.records import MANIFEST, Arrow


def timed(rows: list[tuple[str, int | None, int, float, float]], **manifest: Any) -> Any:
    """The speeds of these timings: kind, process, tokens, reference and candidate."""
    names = ["kind", "process", "tokens", "seconds_ref", "seconds_cand"]
    frame = pd.DataFrame(rows, columns=names).astype({"process": "Int32"})
    found = {**MANIFEST, "suite": {"latency": {"batch_size": 4}}, **manifest}
    return speed(Evidence(InMemory(found, Arrow({"timings": frame}))))  # type: ignore[arg-type]


# Two batches of four texts, two turns a side: 10 tokens of prompt, 8 steps.
ROWS: list[Any] = [
    ("prefill", 1, 80, 0.2, 0.1),
    ("decode", 1, 64, 1.6, 0.8),
    ("prefill", 2, 80, 0.6, 0.3),
    ("decode", 2, 64, 1.6, 0.8),
]


def test_each_side_has_its_milliseconds_and_tokens_a_second() -> None:
    """A row is two turns, and a step gives a token to each of a batch's texts."""
    found = {what: (both.reference, both.candidate) for what, both in timed(ROWS).items()}
    assert found == {
        "ms to the first token": pytest.approx((200.0, 100.0)),  # 0.8 s in four turns
        "tokens a second, prefill": pytest.approx((200.0, 400.0)),  # 160 tokens
        "ms a token after it": pytest.approx((100.0, 50.0)),  # 32 steps in 3.2 s
        "tokens a second, decoding": pytest.approx((40.0, 80.0)),  # 128 tokens
    }


def test_what_says_nothing_is_not_shown() -> None:
    """The pass itself, a simulated candidate, a probe that failed, a clock that stood still."""
    assert timed([("prefill", None, 80, 0.2, 0.1)]) == {}
    assert timed([("decode", 1, 64, 1.0, 0.0)]) == {}
    assert timed(ROWS, not_measured={"latency": "process 3 of 3 failed"}) == {}
    sides = {"reference": {}, "candidate": {"simulated": True}}
    assert timed(ROWS, sides=sides) == {}
