"""A ratio of times, with processes as the unit of resampling.

Timings of one process share its luck: where its memory lies, which cores it got, the clock they
ran at, what else the machine did. Batches of one process tell nothing of that, so that an interval
made of them excludes the truth as often as processes differ: two timings of one model in a process
apart by 1% from run to run leave 21 batches sure of a difference one time in six. Processes that
start afresh are independent draws, so each gives one number, and an interval takes three of them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from evalharness.stats.interval import (
    Interval,
    check_confidence,
    finite_array,
    no_interval,
)
from evalharness.stats.means import t_interval

LEAST_PROCESSES = 3  # of two, t's quantile on one degree of freedom is 6 to 13: no limit holds that
PROCESSES = "t over processes"  # the method of an interval that may be judged
WITHIN_RUN = "within this run"
_FAR = 700.0  # a logarithm that is still a number when exponentiated; at 2 degrees t has no end


def process_ratio_t(
    candidate: npt.ArrayLike, reference: npt.ArrayLike, confidence: float
) -> Interval:
    """Return the geometric mean of candidate ÷ reference over processes, with a t interval.

    Parameters
    ----------
    candidate, reference : (P,) seconds of the same work in each process, above 0.
    confidence : two-sided, in (0, 1).

    Returns
    -------
    Interval
        exp(x̄ ± t·s/√P), x the logarithms of the ratios and t Student's on P − 1 degrees of
        freedom. No interval from fewer than `LEAST_PROCESSES`, nor where they do not differ at
        all: that is a clock too coarse, and no proof.

    """
    check_confidence(confidence)
    cand, ref = finite_array("candidate", candidate), finite_array("reference", reference)
    if cand.shape != ref.shape or not cand.size:
        raise ValueError(
            f"candidate, reference: must have one shape of at least 1 (got {cand.size}, {ref.size})"
        )
    if min(cand.min(), ref.min()) <= 0:
        raise ValueError("candidate, reference: must be above 0")
    x = np.log(cand) - np.log(ref)
    size, value = x.size, float(x.mean())
    if size < LEAST_PROCESSES:
        why = f"{size} of the {LEAST_PROCESSES} processes that an interval takes"
        return no_interval(math.exp(value), confidence, size, size, WITHIN_RUN, why)
    se = float(x.std(ddof=1)) / math.sqrt(size)
    if se == 0:
        why = f"{size} processes took the same times to the last digit: no clock tells that finely"
        return no_interval(math.exp(value), confidence, size, size, PROCESSES, why)
    found = t_interval(value, se, confidence, size, size, f"{PROCESSES} (log)")
    low, high = (
        None if end is None else math.exp(min(max(end, -_FAR), _FAR))
        for end in (found.low, found.high)
    )
    return replace(found, value=math.exp(value), low=low, high=high)
