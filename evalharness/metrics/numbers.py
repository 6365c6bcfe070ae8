"""Numbers as results hold them: null where they are undefined, never NaN or infinite."""

from __future__ import annotations

import math
from typing import Any

CONFIDENCE = 0.95  # of the intervals shown; gates take their own from the policy


def finite(value: Any) -> float | None:
    """``value`` as a float; None where it is missing, NaN or infinite."""
    return float(value) if value is not None and math.isfinite(value) else None


def relative(top: float, bottom: float) -> float | None:
    """√(top / bottom); 0 where both are 0, None where it is undefined."""
    if not (math.isfinite(top) and math.isfinite(bottom)):
        return None
    if bottom == 0:
        return 0.0 if top == 0 else None
    return math.sqrt(top / bottom)


def decibels(error: float | None) -> float | None:
    """A relative error as a signal-to-noise ratio; None where it is exactly 0 or undefined."""
    return -20 * math.log10(error) if error else None
