"""What timings come to: of processes, of one, of an earlier version, and of none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import ttest_1samp

from evalharness.metrics import Estimates, Evidence
from evalharness.run.directory import Run
from evalharness.spec.estimate import Estimate
from evalharness.testing import synthetic
from evalharness.testing.records import MANIFEST, Arrow

DECODE, PREFILL = "latency.decode.ratio", "latency.prefill.ratio"


def timings(*rows: tuple[str, int | None, float, float]) -> pd.DataFrame:
    """Rows of kind, process, reference and candidate."""
    names = ["kind", "process", "seconds_ref", "seconds_cand"]
    frame = pd.DataFrame(rows, columns=names).assign(tokens=16)
    return frame.astype({"process": "Int32"})


def measured(path: Path, metric: str, frame: pd.DataFrame, **manifest: Any) -> Estimate:
    """The estimate of a run that holds these timings."""
    run = Run.create(path / f"run{len(list(path.iterdir()))}", {**MANIFEST, **manifest})  # type: ignore[typeddict-item]
    run.write_block("00000", Arrow(synthetic() | {"timings": frame}))
    found = Estimates(Evidence(run))
    assert found.scopes(metric) == [{}]
    return found.estimate(metric, {}, 0.9)


THREE = [
    ("decode", 1, 1.0, 1.1),
    ("decode", 1, 2.0, 2.3),
    ("decode", 2, 1.0, 1.3),
    ("decode", 3, 1.5, 1.4),
]


def test_a_process_counts_once_whatever_it_timed(tmp_path: Path) -> None:
    """Its batches are added up; an interval is over the three."""
    found = measured(tmp_path, DECODE, timings(*THREE))
    logs = [math.log(3.4 / 3), math.log(1.3), math.log(1.4 / 1.5)]
    by_scipy = ttest_1samp(logs, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((math.exp(by_scipy[0]), math.exp(by_scipy[1])))
    assert found.value == pytest.approx(math.exp(sum(logs) / 3))
    assert (found.n, found.clusters) == (4, 3)


@pytest.mark.parametrize("process", [1, None])
def test_one_process_has_a_value_and_no_interval(tmp_path: Path, process: int | None) -> None:
    """Null is a run that an earlier version recorded, or the pass itself: however many batches."""
    rows = [("decode", process, 1.0, 1.5 + n / 100) for n in range(30)]
    found = measured(tmp_path, DECODE, timings(*rows))
    assert found.value == pytest.approx(1.645)
    assert (found.low, found.high, found.clusters, found.n) == (None, None, 1, 30)
    assert found.method == "within this run"
    assert (found.reason or "").startswith("within this run, in one process")
    assert "`latency: {processes: 3}`" in (found.reason or "")


def test_a_run_recorded_without_the_column_is_one_process(tmp_path: Path) -> None:
    """As files of an earlier version are."""
    run = Run.create(tmp_path / "run", dict(MANIFEST))
    run.write_block("00000", Arrow(synthetic()))
    file = run.records / "timings-00000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["process"]), file)
    for metric in (DECODE, PREFILL):
        found = Estimates(Evidence(run)).estimate(metric, {}, 0.9)
        assert found.value is not None
        assert (found.low, found.clusters) == (None, 1)


def test_the_pass_is_left_out_where_processes_were_timed(tmp_path: Path) -> None:
    """There the reference always goes first."""
    rows = [(("prefill", *row[1:])) for row in THREE]
    plain = measured(tmp_path, PREFILL, timings(*rows))
    beside = measured(tmp_path, PREFILL, timings(*rows, ("prefill", None, 1.0, 99.0)))
    assert plain == beside


def test_what_a_process_failed_to_measure_is_said(tmp_path: Path) -> None:
    """Though two of three are recorded, and though none is."""
    why = "process 3 of 3 ended while loading x (exit code 1)"
    for rows in (THREE[:3], []):
        frame = timings(*rows)
        found = measured(tmp_path, DECODE, frame, not_measured={"latency": why})
        assert (found.value, found.low) == (None, None)
        assert found.reason == f"not measured: {why}"


def test_stopping_early_does_not_widen_it(tmp_path: Path) -> None:
    """No look was taken at times."""
    plain = measured(tmp_path, DECODE, timings(*THREE))
    for rule in ({"rule": "looks", "looks": 5, "taken": [0.2, 0.4]}, {"rule": "sequence"}):
        assert measured(tmp_path, DECODE, timings(*THREE), stop_early=rule) == plain


def test_a_clock_that_stood_still_gives_no_number(tmp_path: Path) -> None:
    """Null with a reason."""
    rows = [("decode", n, 1.0, 0.0) for n in (1, 2, 3)]
    found = measured(tmp_path, DECODE, timings(*rows))
    assert (found.value, found.reason) == (None, "it took no time by the clock")
