"""Numbers carry the digits that their interval supports, and never read like their limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evalharness.report import numbers
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import GateResult

finite = st.floats(allow_nan=False, allow_infinity=False, width=64, min_value=-1e12, max_value=1e12)


def gate(**more: Any) -> GateResult:
    """A gate on the perplexity ratio."""
    fields = {"id": "g", "metric": "perplexity.ratio", "verdict": "PASS", "observed": 1.0183}
    return GateResult(**{**fields, "low": 1.0121, "high": 1.0199, "threshold": 1.02, **more})


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (1.01834, 1.0121, 1.0246, "1.0183 [1.0121, 1.0246]"),
        (12.3457, 11.1, 13.6, "12.3 [11.1, 13.6]"),
        (12345.6, 12000.0, 12600.0, "12,346 [12,000, 12,600]"),
        (0.0213, 0.0194, 0.0232, "0.0213 [0.0194, 0.0232]"),
        (3.1e-7, 2.8e-7, 3.5e-7, "3.10e-7 [2.80e-7, 3.50e-7]"),
        (5.2e9, 5.0e9, 5.4e9, "5.200e9 [5.000e9, 5.400e9]"),
        (33.2, None, None, "33.2"),
        (5.02, 5.02, 5.02, "5.02 [5.02, 5.02]"),
        (0.0, 0.0, 0.0, "0 [0, 0]"),
        (0.0, 0.0, 0.004, "0.0000 [0.0000, 0.0040]"),
        (None, None, None, "—"),
    ],
)
def test_the_half_width_of_the_interval_decides_the_decimals(
    value: float | None, low: float | None, high: float | None, expected: str
) -> None:
    """Two significant digits of the half-width; four of the value where there is none."""
    assert expected == str(numbers.shown(value, low, high))


def test_a_shift_carries_its_sign() -> None:
    """``+`` says that the candidate is above the reference."""
    e = Estimate(id="nll.shift", value=0.0124, low=-0.001, high=0.0258)
    assert str(numbers.estimate(e)) == "+0.012 [-0.001, +0.026]"


def test_what_rounds_to_zero_has_no_sign() -> None:
    """Neither -0.00 nor +0.00 is a number anybody measured."""
    assert numbers.number(-0.0001, 2) == "0.00"
    assert numbers.number(0.0001, 2, signed=True) == "0.00"


@given(value=finite, half=st.floats(1e-9, 1e9))
def test_the_shown_value_is_within_a_tenth_of_the_half_width(value: float, half: float) -> None:
    """Rounding is never coarse against the uncertainty, unless the number is very large."""
    assume(abs(value) < 1e6 and half > abs(value) * 1e-9)
    shown = numbers.shown(value, value - half, value + half)
    assert abs(float(shown.value.replace(",", "")) - value) <= max(half / 10, abs(value) * 1e-3)


@given(
    threshold=st.floats(-10, 10).map(lambda x: round(x, 3)),
    gap=st.floats(1e-7, 1.0),
    half=st.floats(1e-6, 1.0),
)
def test_the_deciding_end_never_reads_like_the_limit_it_differs_from(
    threshold: float, gap: float, half: float
) -> None:
    """1.0199 against 1.02 is not shown as 1.02 against 1.02."""
    high = threshold - gap
    g = gate(observed=high - half, low=high - 2 * half, high=high, bound=high, threshold=threshold)
    shown = numbers.gate(g)
    limit = float(shown.limit.removeprefix("≤ "))
    assert float(shown.bound) != limit
    assert float(shown.observed.high.replace(",", "")) != limit


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1.02, "1.02"), (0.1, "0.1"), (-0.01, "-0.01"), (100.0, "100"), (1e-6, "1e-6"), (0.0, "0")],
)
def test_a_limit_is_shown_as_it_was_written(limit: float, expected: str) -> None:
    """No padding and no rounding: the reader finds it in the policy."""
    assert numbers.limit(limit) == expected


def test_the_limit_says_its_side() -> None:
    """A max is an upper limit, a min a lower one."""
    assert numbers.gate(gate()).limit == "≤ 1.02"
    assert numbers.gate(gate(side="min")).limit == "≥ 1.02"
    assert numbers.gate(gate(threshold=None)).limit == "—"


def test_a_gate_without_a_number_shows_a_dash() -> None:
    """What was not measured is neither 0 nor blank."""
    shown = numbers.gate(gate(observed=None, low=None, high=None))
    assert (str(shown.observed), shown.observed.interval, shown.bound) == ("—", "", "—")


@pytest.mark.parametrize(
    ("floor", "expected"), [(0.0002, "0.0002"), (3.1e-5, "0.000031"), (None, "—"), (0.0, "0.0000")]
)
def test_a_noise_floor_is_never_rounded_away(floor: float | None, expected: str) -> None:
    """Where the estimate's decimals would hide it, it gets its own."""
    e = Estimate(id="kl.mean", value=0.0213, low=0.0194, high=0.0232, noise_floor=floor)
    assert numbers.noise_floor(e) == expected


def test_a_page_sets_a_true_minus_but_keeps_an_exponent_that_can_be_copied() -> None:
    """Typography stops where a number would no longer be one."""
    assert numbers.typeset(numbers.NumberText("-3.1e-7 [-4, +2]")) == "−3.1e-7 [−4, +2]"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.byte_size(269_000_000), "257 MiB"),
        (numbers.byte_size(13_476_831_232), "12.6 GiB"),
        (numbers.byte_size(12), "12 B"),
        (numbers.duration(0.00085), "850 µs"),
        (numbers.duration(0.0124), "12.4 ms"),
        (numbers.duration(3.214), "3.21 s"),
        (numbers.duration(245), "4 min 05 s"),
        (numbers.duration(10_000), "2.8 h"),
        (numbers.large(134_515_008), "135 M"),
        (numbers.large(6_738_415_616), "6.74 B"),
        (numbers.large(9_999), "9,999"),
        (numbers.percent(0.95), "95%"),
        (numbers.percent(0.999), "99.9%"),
        (numbers.figures(0.00042), "0.000420"),
        (numbers.figures(None), "—"),
    ],
)
def test_sizes_and_durations_have_their_unit(shown: str, expected: str) -> None:
    """Bytes, seconds, counts and confidences as a person says them."""
    assert shown == expected


@pytest.mark.parametrize(
    ("id", "ends", "words"),
    [
        ("weights.bits_per_weight", (0.5, 0.5), "exact"),
        ("top1.agreement", (0.5, 0.5), "no variation seen"),
        ("top1.agreement", (None, None), ""),
        ("top1.agreement", (0.25, 0.75), "[0.25, 0.75]"),
    ],
)
def test_only_what_was_counted_is_exact(
    id: str, ends: tuple[float | None, ...], words: str
) -> None:
    """Documents that are all alike say nothing of those that were not drawn."""
    e = Estimate(
        id=id,
        scope={},
        value=0.5,
        low=ends[0],
        high=ends[1],
        confidence=0.95,
        method="t",
        n=9,
        clusters=9,
        unit="fraction",
        direction="lower",
    )
    assert numbers.interval_words(e) == words
