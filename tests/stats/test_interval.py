"""The interval type and the checks every estimator shares."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from evalharness.stats.interval import (
    Interval,
    check_confidence,
    code_array,
    count_array,
    exp_interval,
    finite_array,
)


def interval(value: float | None = 0.1, **changes: object) -> Interval:
    fields: dict[str, object] = {
        "low": 0.0,
        "high": 0.2,
        "confidence": 0.95,
        "n": 10,
        "clusters": 5,
        "method": "m",
        "se": 0.05,
        "reason": None,
    }
    return Interval(value, **(fields | changes))  # type: ignore[arg-type]


def test_a_percentage_is_not_a_confidence() -> None:
    """95 is refused, with the range and what was got."""
    with pytest.raises(ValueError, match=re.escape("confidence: must be in (0,1), got 95")):
        check_confidence(95)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, math.nan])
def test_confidence_is_strictly_between_0_and_1(confidence: float) -> None:
    """The ends, negatives and NaN are refused."""
    with pytest.raises(ValueError, match="must be in"):
        check_confidence(confidence)


@pytest.mark.parametrize("field", ["low", "high", "se"])
def test_an_interval_never_holds_a_nan(field: str) -> None:
    """A NaN in any number is an error that names the number."""
    with pytest.raises(ValueError, match=f"Interval.{field}: must be finite or None"):
        interval(**{field: math.nan})


def test_an_interval_never_has_one_end() -> None:
    """Both ends are given or neither."""
    with pytest.raises(ValueError, match="both given or both None"):
        interval(low=None)


def test_a_missing_value_needs_a_reason() -> None:
    """None without a reason is an error."""
    with pytest.raises(ValueError, match="needs a reason"):
        interval(None, low=None, high=None)


def test_exp_maps_the_value_and_both_ends() -> None:
    """exp of 0.1 in [0, 0.2] is e^0.1 in [1, e^0.2], and the error stays on the log scale."""
    ratio = exp_interval(interval())
    assert (ratio.value, ratio.low, ratio.high) == (math.exp(0.1), 1.0, math.exp(0.2))
    assert ratio.se == 0.05
    assert ratio.method == "exp of m"


def test_exp_keeps_a_missing_interval_missing() -> None:
    """A value without an interval stays so, with its reason."""
    ratio = exp_interval(interval(low=None, high=None, reason="one document"))
    assert (ratio.low, ratio.high, ratio.reason) == (None, None, "one document")


def test_exp_that_overflows_names_the_end() -> None:
    """A perplexity ratio beyond any float64 is an error, not infinity."""
    with pytest.raises(ValueError, match=re.escape("high: exp(800.0) is not a finite number")):
        exp_interval(interval(high=800.0))


def test_finite_array_counts_what_is_bad() -> None:
    """The message names the array and how many entries are bad."""
    with pytest.raises(ValueError, match=re.escape("sums: must be finite (got 2 NaN or infinite")):
        finite_array("sums", [1.0, math.nan, math.inf])


@pytest.mark.parametrize("counts", [[-1, 2], [1.5, 2]])
def test_counts_are_whole_and_not_negative(counts: list[float]) -> None:
    """Negative and fractional counts are refused."""
    with pytest.raises(ValueError, match="counts: must be whole numbers of at least 0"):
        count_array("counts", counts)


@pytest.mark.parametrize("codes", [[0.0, 1.0], [0], [-1, 0]])
def test_codes_are_integers_of_the_right_length(codes: list[float]) -> None:
    """Float codes, a wrong length and negative codes are refused."""
    with pytest.raises(ValueError, match="clusters: must"):
        code_array("clusters", np.asarray(codes), 2)
