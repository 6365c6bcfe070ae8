"""P-values for the claim that a value is beyond its limit."""

from __future__ import annotations

import math
from typing import Literal

from scipy.special import ndtr, stdtr, stdtrit

from evalharness.stats.interval import Interval

Side = Literal["above", "below"]


def p_value_beyond(value: float, se: float, df: float, limit: float, bad_side: Side) -> float:
    """Return the one-sided p-value for the truth being beyond the limit.

    p = P(T_df >= (value − limit)/se) where larger is worse (``bad_side`` "above"), and the
    mirror image for "below". ``df`` may be infinite (normal). With se = 0 it is 0 beyond the
    limit and 1 otherwise.

    Raises
    ------
    ValueError
        For a number that is not finite (``df`` may be), se < 0, df <= 0, or an unknown side.

    """
    if not (math.isfinite(value) and math.isfinite(se) and math.isfinite(limit)):
        raise ValueError(f"value, se, limit: must be finite (got {value}, {se}, {limit})")
    if se < 0 or not df > 0:
        raise ValueError(f"se, df: must be at least 0 and above 0 (got {se}, {df})")
    beyond = _beyond(value, limit, bad_side)
    if se == 0:
        return 0.0 if beyond > 0 else 1.0
    t = -beyond / se
    return float(ndtr(t)) if math.isinf(df) else float(stdtr(df, t))


def interval_p_value(interval: Interval, limit: float, bad_side: Side) -> float | None:
    """Return the one-sided p-value for the truth being beyond the limit, from an interval.

    The distance to the limit is measured in the interval's own half-width on that side, so the
    result is at most (1 − confidence)/2 exactly where the whole interval is beyond the limit,
    also for intervals that are not symmetric. None where there is no interval.
    """
    if interval.value is None or interval.low is None or interval.high is None:
        return None
    beyond = _beyond(interval.value, limit, bad_side)
    toward_low = (bad_side == "above") == (beyond > 0)
    half = interval.value - interval.low if toward_low else interval.high - interval.value
    df = interval.clusters - 1
    t = float(stdtrit(df, 0.5 + interval.confidence / 2))
    return p_value_beyond(interval.value, max(half, 0.0) / t, df, limit, bad_side)


def _beyond(value: float, limit: float, bad_side: Side) -> float:
    if bad_side not in ("above", "below"):
        raise ValueError(f"bad_side: must be 'above' or 'below' (got {bad_side!r})")
    return value - limit if bad_side == "above" else limit - value
