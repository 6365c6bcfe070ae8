"""Fitted temperatures against scipy's minimiser, deletion and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize
from sklearn.metrics import log_loss

from evalharness.stats import temperature_shift
from evalharness.stats.calibration import logit, rows
from evalharness.stats.temperature import inverse_temperature
from tests.stats.streams import predictions


def fitted_temperature(conf: object, correct: object) -> float | None:
    """The best T of one side."""
    p, y = rows(conf, correct)  # type: ignore[arg-type]
    beta = inverse_temperature(logit(p), y)
    return None if beta is None else 1 / beta


@pytest.mark.parametrize("sharpen", [0.5, 1.0, 3.0])
def test_the_fit_is_scipys_minimum_of_the_log_loss(sharpen: float) -> None:
    """Brent's method on sklearn's log loss finds the same temperature."""
    _, _, conf, correct, _ = predictions(np.random.default_rng(0), 30, 40, sharpen)

    def loss(log_t: float) -> float:
        return float(log_loss(correct, 1 / (1 + np.exp(-logit(conf) / math.exp(log_t)))))

    expected = math.exp(optimize.minimize_scalar(loss, bracket=(-1, 1), tol=1e-10).x)
    assert fitted_temperature(conf, correct) == pytest.approx(expected, rel=1e-5)


def test_a_sharpened_model_is_too_hot_by_its_factor() -> None:
    """Logits multiplied by 2 need T twice as large."""
    conf, correct, *_ = predictions(np.random.default_rng(1), 50, 100, 1.0)
    sharper = 1 / (1 + np.exp(-2 * logit(conf)))
    one, other = fitted_temperature(conf, correct), fitted_temperature(sharper, correct)
    assert one is not None
    assert other == pytest.approx(2 * one, rel=1e-3)  # clipping at ε is not scale free


@pytest.mark.parametrize(
    ("conf", "correct"),
    [([], []), ([0.9, 0.8], [1, 1]), ([0.5, 0.5], [0, 1]), ([0.9, 0.1], [0, 1])],
)
def test_some_rows_have_no_best_temperature(conf: list[float], correct: list[int]) -> None:
    """No rows, all right, no confidence at all, and confidence that is always wrong."""
    assert fitted_temperature(conf, correct) is None


def test_the_shift_names_the_side_without_a_temperature() -> None:
    """A candidate that is always right has no fit, and the reason says whose it is."""
    ref, right, cand, _, codes = predictions(np.random.default_rng(2), 10, 20, 1.0)
    got = temperature_shift(ref, right, np.maximum(cand, 0.6), np.ones(200), codes, 0.9)
    assert (got.value, got.low) == (None, None)
    assert got.reason == "no temperature is best for the candidate: its confidence does not fit one"


def test_one_newton_step_is_close_to_refitting() -> None:
    """The jackknife error agrees with refits that leave out each document within 5%."""
    args = predictions(np.random.default_rng(3), 30, 40, 1.5)

    def shift(keep: object) -> float:
        fits = [fitted_temperature(args[i][keep], args[i + 1][keep]) for i in (0, 2)]  # type: ignore[call-overload]
        return fits[1] - fits[0]  # type: ignore[operator]

    left_out = np.array([shift(args[4] != g) for g in range(30)])
    expected = math.sqrt(29 / 30 * ((left_out - left_out.mean()) ** 2).sum())
    assert temperature_shift(*args, 0.9).se == pytest.approx(expected, rel=0.05)


def test_swapping_the_sides_flips_the_shift() -> None:
    """Exchanged sides negate value and ends."""
    ref, right, cand, again, codes = predictions(np.random.default_rng(4), 40, 30, 1.5)
    one = temperature_shift(ref, right, cand, again, codes, 0.9)
    other = temperature_shift(cand, again, ref, right, codes, 0.9)
    assert (one.value, one.low, one.high) == pytest.approx(
        (-other.value, -other.high, -other.low)  # type: ignore[operator]
    )


def test_nominal_95_percent_intervals_cover() -> None:
    """With 50 documents at least 92% of intervals hold the true shift."""
    truth = temperature_shift(*predictions(np.random.default_rng(99), 2000, 300, 1.4), 0.9).value
    rng = np.random.default_rng(5)
    found = [temperature_shift(*predictions(rng, 50, 60, 1.4), 0.95) for _ in range(300)]
    assert np.mean([i.low <= truth <= i.high for i in found]) >= 0.92  # type: ignore[operator]
