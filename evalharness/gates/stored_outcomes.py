"""What a baseline keeps of each document and item, as text in its JSON.

Arrays are little-endian, compressed and in base64; each is kept once, whoever refers to it. Nothing
in them is code, and what comes out of one is as long as the file says or the baseline is refused.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from evalharness.metrics import REGISTRY, Estimates
from evalharness.metrics.paired import Outcomes, outcomes
from evalharness.spec.estimate import Scope

Array = npt.NDArray[Any]
_MOST = 10_000_000  # documents or items that one array may hold
_KEYS, _NUMBERS, _BITS = "<u8", "<f8", "u1"


class Series(BaseModel):
    """The outcomes of a metric in a scope: names of arrays, of which ``rows`` picks some."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    scope: Scope
    positions: str
    size: int = Field(ge=1, le=_MOST)
    keys: str
    sums: str
    counts: str
    rows: str | None = None


class StoredOutcomes(BaseModel):
    """All of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    series: list[Series] = []
    arrays: dict[str, str] = {}

    def find(self, metric: str, scope: Mapping[str, str]) -> Outcomes | None:
        """Those of ``metric`` in exactly ``scope``; ValueError where they are not whole."""
        found = (s for s in self.series if s.metric == metric and s.scope == dict(scope))
        one = next(found, None)
        if one is None:
            return None
        keys = self._array(one.keys, _KEYS, one.size)
        sums = self._array(one.sums, _NUMBERS, one.size)
        counts = self._array(one.counts, _NUMBERS, one.size)
        if not (np.isfinite(sums).all() and np.isfinite(counts).all() and (counts > 0).all()):
            raise ValueError(f"{metric}: sums must be finite, and counts above 0")
        if (keys[1:] <= keys[:-1]).any():
            raise ValueError(f"{metric}: keys must rise")
        if one.rows is not None:
            bits = self._array(one.rows, _BITS, (one.size + 7) // 8)
            rows = np.unpackbits(bits, count=one.size).astype(bool)
            if not rows.any():
                raise ValueError(f"{metric}: {one.rows!r} picks nothing")
            keys, sums, counts = keys[rows], sums[rows], counts[rows]
        return Outcomes(keys, sums, counts, one.positions)

    def _array(self, name: str, kind: str, size: int) -> Array:
        if name not in self.arrays:
            raise ValueError(f"there is no array {name!r}")
        wanted = size * np.dtype(kind).itemsize
        try:
            packed = base64.b64decode(self.arrays[name], validate=True)
            # One byte more than is wanted: enough to see that there are too many.
            data = zlib.decompressobj().decompress(packed, wanted + 1)
        except (binascii.Error, zlib.error) as error:
            raise ValueError(f"the array {name!r} cannot be read ({error})") from None
        if len(data) != wanted:
            raise ValueError(f"the array {name!r} does not hold {size:,} numbers")
        return np.frombuffer(data, kind)


class _Arrays:
    """Arrays as text, each of them once."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def name(self, values: Array, kind: str) -> str:
        """The name that ``values`` have."""
        data = zlib.compress(values.astype(kind).tobytes(), 9)
        return self.names.setdefault(base64.b64encode(data).decode(), f"a{len(self.names)}")


def collect(estimates: Estimates) -> StoredOutcomes:
    """What a run's means are made of; nothing where it could stop early.

    A run that stops when it looks good has sums that look good: no interval of a difference to them
    knows of it, while the run's own does.
    """
    arrays, series = _Arrays(), []
    for id, metric in REGISTRY.items() if estimates.stopping is None else ():
        wholes: list[tuple[Outcomes, Series]] = []
        for scope in estimates.scopes(id) if metric.totals is not None else ():
            found = outcomes(metric, estimates.evidence, scope)
            if found is None:
                continue
            named = {"metric": id, "scope": scope, "positions": found.positions}
            # A corpus has some of the documents that everything has: which ones will do.
            part = next((p for whole, s in wholes if (p := _part(found, whole, s, arrays))), None)
            if part is None:
                one = Series(
                    size=found.keys.size,
                    keys=arrays.name(found.keys, _KEYS),
                    sums=arrays.name(found.sums, _NUMBERS),
                    counts=arrays.name(found.counts, _NUMBERS),
                    **named,
                )
                wholes.append((found, one))
                series.append(one)
            else:
                series.append(part.model_copy(update=named))
    return StoredOutcomes(series=series, arrays={n: text for text, n in arrays.names.items()})


def _part(part: Outcomes, whole: Outcomes, series: Series, arrays: _Arrays) -> Series | None:
    """``part`` as some of what ``series`` has of ``whole``; None where it is not."""
    rows = np.isin(whole.keys, part.keys, assume_unique=True)
    same = all(
        np.array_equal(of_whole[rows], own)
        for of_whole, own in (
            (whole.keys, part.keys),
            (whole.sums, part.sums),
            (whole.counts, part.counts),
        )
    )
    rows_named = arrays.name(np.packbits(rows), _BITS) if same else None
    return series.model_copy(update={"rows": rows_named}) if same else None
