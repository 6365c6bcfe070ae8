"""P-values for the claim that a value is beyond its limit."""

from __future__ import annotations

from typing import Literal

from scipy.special import stdtr, stdtrit

from evalharness.stats.interval import Interval

Side = Literal["above", "below"]


def interval_p_value(interval: Interval, limit: float, bad_side: Side) -> float | None:
    """Return the one-sided p-value for the truth being beyond the limit, from an interval.

    The distance to the limit is measured in the interval's own half-width on that side, so the
    result is at most (1 − confidence)/2 exactly where the whole interval is beyond the limit,
    also for intervals that are not symmetric. With a half-width of 0 it is 0 beyond the limit and
    1 otherwise.

    Parameters
    ----------
    interval : the estimate, on Student's t with ``clusters`` − 1 degrees of freedom.
    limit : in the unit of ``interval.value``.
    bad_side : where larger is worse ``above``, where smaller is worse ``below``.

    Returns
    -------
    float or None
        In [0, 1]. None where there is no interval.

    """
    if interval.value is None or interval.low is None or interval.high is None:
        return None
    beyond = interval.value - limit if bad_side == "above" else limit - interval.value
    toward_low = (bad_side == "above") == (beyond > 0)
    half = interval.value - interval.low if toward_low else interval.high - interval.value
    df = interval.clusters - 1
    se = max(half, 0.0) / float(stdtrit(df, 0.5 + interval.confidence / 2))
    if se == 0:
        return 0.0 if beyond > 0 else 1.0
    return float(stdtr(df, -beyond / se))
