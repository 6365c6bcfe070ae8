"""An estimate with its interval, or with the reason there is none.

Every estimator of the package returns an :class:`Interval`, so that the rules which keep a
number honest are written once: a confidence is a fraction and never a percentage, a NaN is an
error and never a value, and one document gives no interval rather than a standard error of 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]

ONE_CLUSTER = "only one document: between-document variation is unknown, so there is no interval"
NO_CLUSTERS = "no document has a scored token"


@dataclass(frozen=True)
class Interval:
    """A value and the two ends of its confidence interval.

    ``value`` is None when it is undefined, ``low`` and ``high`` are None when no honest interval
    exists; ``reason`` then says why in plain English.
    """

    value: float | None
    low: float | None
    high: float | None
    confidence: float  # two-sided, in (0, 1)
    n: int  # tokens or items
    clusters: int  # documents with at least one of them
    method: str
    se: float | None = None  # on the scale the interval was built on: log scale for "(log)"
    reason: str | None = None

    def __post_init__(self) -> None:
        """Refuse a NaN, an infinity, half an interval, or a missing number without a reason."""
        check_confidence(self.confidence)
        for name in ("value", "low", "high", "se"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"Interval.{name}: must be finite or None (got {number})")
        if (self.low is None) != (self.high is None):
            raise ValueError("Interval: low and high must be both given or both None")
        if (self.value is None or self.low is None) and not self.reason:
            raise ValueError("Interval: a missing value or interval needs a reason")


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless ``confidence`` is a fraction strictly between 0 and 1."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: must be in (0,1), got {confidence}")


def within(interval: Interval, low: float, high: float) -> Interval:
    """Cut off what lies outside ``low`` … ``high``, where the quantity always is.

    It covers the quantity as often as it did before. An interval whose value is outside is left as
    it is: then it is not of such a quantity.
    """
    if interval.value is None or interval.low is None or interval.high is None:
        return interval
    if not low <= interval.value <= high:
        return interval
    return replace(interval, low=max(interval.low, low), high=min(interval.high, high))


def exp_interval(interval: Interval) -> Interval:
    """Exponentiate a value and its ends: a mean NLL shift becomes a perplexity ratio.

    ``se`` keeps the log scale on which the interval was built. Raises ValueError where an end
    overflows a float64.
    """

    def exp(name: str, number: float | None) -> float | None:
        if number is None:
            return None
        try:
            return math.exp(number)
        except OverflowError:
            raise ValueError(f"{name}: exp({number}) is not a finite number") from None

    return replace(
        interval,
        value=exp("value", interval.value),
        low=exp("low", interval.low),
        high=exp("high", interval.high),
        method=f"exp of {interval.method}",
    )


def finite_array(name: str, values: npt.ArrayLike, ndim: int = 1) -> Floats:
    """Return ``values`` as float64, or raise ValueError naming what is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim:
        raise ValueError(f"{name}: must have {ndim} dimension(s) (got shape {array.shape})")
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise ValueError(f"{name}: must be finite (got {bad} NaN or infinite of {array.size})")
    return array


def count_array(name: str, values: npt.ArrayLike, ndim: int = 1) -> Floats:
    """Return whole numbers of at least 0 as float64 (exact below 2**53), or raise ValueError."""
    array = finite_array(name, values, ndim)
    if array.size and (array.min() < 0 or bool(np.any(array != np.floor(array)))):
        raise ValueError(f"{name}: must be whole numbers of at least 0")
    return array


def code_array(name: str, values: npt.ArrayLike, length: int) -> Codes:
    """Return cluster codes (N,) as integers of at least 0, or raise ValueError."""
    raw: npt.NDArray[Any] = np.asarray(values)
    if raw.shape != (length,):
        raise ValueError(f"{name}: must have shape ({length},) (got {raw.shape})")
    if raw.dtype.kind not in "iu" and raw.size:
        raise ValueError(f"{name}: must be integer codes (got {raw.dtype})")
    codes = raw.astype(np.intp, copy=False)
    if codes.size and int(codes.min()) < 0:
        raise ValueError(f"{name}: must be codes of at least 0 (got {int(codes.min())})")
    return codes


def no_interval(
    value: float | None, confidence: float, n: int, clusters: int, method: str, reason: str
) -> Interval:
    """Return an estimate without an interval and the reason for that."""
    return Interval(value, None, None, confidence, n, clusters, method, None, reason)
