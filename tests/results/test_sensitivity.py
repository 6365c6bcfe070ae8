"""The ranking from its records, against sums by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from evalharness.metrics import Evidence
from evalharness.results.sensitivity import sensitivity
from evalharness.run.directory import InMemory
from evalharness.run.records import SENSITIVITY

TOKENS = [10, 10, 10, 10]
KL: dict[tuple[str, str], list[float]] = {
    ("gradient", "a"): [4, 5, 6, 5],
    ("gradient", "b"): [1, 1, 2, 0],
    ("swap", "a"): [4, 4, 6, 6],
    ("swap", "b"): [1, 1, 1, 1],
    ("swap", "*"): [6, 7, 6, 5],
    ("noise", "a"): [2, 2, 2, 2],
    ("restore", ""): [9, 8, 9, 8],
    ("restore", "a"): [4, 4, 4, 4],
    ("restore", "b"): [8, 8, 8, 8],
}


def evidence(**manifest: Any) -> Evidence:
    rows = [
        {"module": m, "what": w, "doc": d, "tokens": TOKENS[d], "kl": float(v)}
        for (w, m), values in KL.items()
        for d, v in enumerate(values)
    ]
    table = pa.Table.from_pylist(rows, schema=SENSITIVITY)
    known = {"order": ["a", "b"], "zero_swap": 0.0, "suffix": True, **manifest}
    return Evidence(InMemory({"sensitivity": known}, {"sensitivity": table}))


def test_additivity_is_the_sum_of_single_swaps_over_all_together() -> None:
    found = sensitivity(evidence())
    assert found is not None
    assert found.additivity == pytest.approx((20 + 4) / 24)


def test_swap_and_restore_have_intervals_over_documents() -> None:
    from evalharness.stats import cluster_skew_t

    found = sensitivity(evidence())
    assert found is not None
    a = found.modules[0]
    assert (a.score, a.noise) == (pytest.approx(0.5), pytest.approx(0.2))
    for estimate, values in ((a.swap, [4, 4, 6, 6]), (a.restore, [5, 4, 5, 4])):
        assert estimate is not None
        expected = cluster_skew_t(np.array(values), np.array(TOKENS), 0.95)
        assert estimate.value == pytest.approx(sum(values) / 40)
        assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_a_zero_swap_that_is_not_zero_is_said() -> None:
    found = sensitivity(evidence(zero_swap=1e-3))
    assert found is not None
    assert "gives KL 0.001 instead of 0" in found.notes[0]
