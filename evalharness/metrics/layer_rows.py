"""The records of one module as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evalharness.run.records import BINS


@dataclass(frozen=True)
class LayerRows:
    """The records of one module, a row a document."""

    columns: dict[str, Any]  # Arrow arrays of all modules
    rows: npt.NDArray[np.int64]  # this module's

    def column(self, name: str) -> npt.NDArray[Any]:
        """One number a document, (G,)."""
        found: npt.NDArray[Any] = self.columns[name].to_numpy(zero_copy_only=False)[self.rows]
        return found

    def of(self, chosen: npt.NDArray[np.bool_]) -> LayerRows:
        """The rows of the documents that ``chosen`` (G,) takes."""
        return LayerRows(self.columns, self.rows[chosen[self.column("doc")]])

    def text(self, name: str) -> str:
        """What is the same in every row."""
        return str(self.columns[name][int(self.rows[0])])

    def histogram(self, name: str) -> npt.NDArray[np.int64]:
        """Dense counts (G, BINS) from the sparse columns ``name_bins`` and ``name_counts``."""
        bins, counts = self.columns[f"{name}_bins"], self.columns[f"{name}_counts"]
        offsets = bins.offsets.to_numpy()
        dense = np.zeros((len(self.rows), BINS), np.int64)
        all_bins, all_counts = bins.values.to_numpy(), counts.values.to_numpy()
        for i, row in enumerate(self.rows):
            part = slice(offsets[row], offsets[row + 1])
            dense[i, all_bins[part]] = all_counts[part]
        return dense

    def largest(self) -> tuple[int, float, int, int] | None:
        """Document, value, position and channel of the largest |Δ|; None where it is not finite."""
        row = int(self.column("max_abs").argmax())
        value, position = float(self.column("max_abs")[row]), self.column("max_abs_position")[row]
        if not (np.isfinite(value) and np.isfinite(position)):
            return None
        channel = int(self.column("max_abs_channel")[row])
        return int(self.column("doc")[row]), value, int(position), channel
