"""How many numbers of the records are none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

from evalharness.run.part import Recorded

Where = tuple[str, bool] | None
"""The rows where a column is null, or is not; None: all."""


def not_finite(
    run: Recorded, kind: str, names: Sequence[str], where: Where
) -> npt.NDArray[np.int64]:
    """Rows of one kind of record, and in how many of them each of these columns is not finite."""
    table = run.table(kind, [*names, *([where[0]] if where else [])])
    if where is not None:
        null = compute.is_null(table[where[0]])
        table = table.filter(null if where[1] else compute.invert(null))
    return np.array([table.num_rows, *(_count(table[name]) for name in names)])


def _count(column: pa.ChunkedArray) -> int:
    finite = compute.fill_null(compute.is_finite(column), False)
    return len(column) - int(compute.sum(finite).as_py() or 0)
