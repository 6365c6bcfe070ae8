"""Runs that an earlier version recorded, without a column that there is now."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evalharness.metrics import Estimates, Evidence
from evalharness.run.directory import Run
from evalharness.testing import synthetic
from evalharness.testing.records import MANIFEST, Arrow, estimates


@pytest.fixture
def earlier(tmp_path: Path) -> Estimates:
    """A run of two blocks whose token records hold no total variation."""
    run = Run.create(tmp_path / "run", dict(MANIFEST))
    run.write_block("00000", Arrow(synthetic()))
    for kind in ("tokens", "item_tokens"):
        file = run.records / f"{kind}-00000.parquet"
        pq.write_table(pq.read_table(file).drop_columns(["total_variation"]), file)
    return Estimates(Evidence(run))


@pytest.mark.parametrize("scope", [{}, {"corpus": "a"}, {"slice": "xs"}, {"task": "quiz"}])
def test_what_was_not_recorded_is_not_measured(earlier: Estimates, scope: dict[str, str]) -> None:
    """Null with a reason that says so, and no number made up of what is missing."""
    found = earlier.estimate("acceptance.rate", scope, 0.9)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.reason == (
        "not measured: the run was recorded by a version without total_variation"
    )


def test_every_other_metric_is_what_it_was(earlier: Estimates) -> None:
    """The missing column touches nothing that does not read it."""
    whole = estimates(synthetic())
    for id in ("kl.mean", "kl.p99", "top1.agreement", "logit.half_range", "ece.shift"):
        found = earlier.estimate(id, {}, 0.9)
        assert found.value is not None
        assert found == whole.estimate(id, {}, 0.9)
