"""Synthetic runs: records without a model, written and read as a run's are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evalharness.metrics import Estimates, Evidence
from evalharness.run.directory import Run
from evalharness.testing import Tables
from evalharness.testing.records import MANIFEST, Arrow


@pytest.fixture
def estimates(tmp_path: Path) -> Callable[[Tables], Estimates]:
    """Write tables as a run and return its estimates."""

    def make(tables: Tables) -> Estimates:
        run = Run.create(tmp_path / f"run{len(list(tmp_path.iterdir()))}", dict(MANIFEST))
        run.write_block("00000", Arrow(tables))
        return Estimates(Evidence(run))

    return make
