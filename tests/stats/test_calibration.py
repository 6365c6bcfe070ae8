"""Per-row calibration quantities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from evalharness.stats import brier, calibration_score_sums, cluster_sums
from evalharness.stats.calibration import LOGIT_EPSILON, logit
from tests.stats.streams import predictions


def test_the_mean_brier_score_is_sklearns() -> None:
    """The mean of the rows is sklearn's brier_score_loss."""
    conf, correct, *_ = predictions(np.random.default_rng(0), 20, 30, 1.0)
    assert brier(conf, correct).mean() == pytest.approx(brier_score_loss(correct, conf))


def test_the_calibration_score_is_the_slope_of_the_log_loss() -> None:
    """Its mean is −d(log loss)/d(log T) at T = 1, by a finite difference of sklearn's log_loss."""
    _, _, conf, correct, _ = predictions(np.random.default_rng(1), 20, 50, 1.4)

    def loss(temperature: float) -> float:
        return float(log_loss(correct, 1 / (1 + np.exp(-logit(conf) / temperature))))

    h = 1e-4
    slope = (loss(math.exp(h)) - loss(math.exp(-h))) / (2 * h)
    assert calibration_score_sums(conf, correct).mean() == pytest.approx(-slope, abs=1e-7)


def test_the_sign_tells_overconfidence_from_underconfidence() -> None:
    """Sharpened confidences score above 0, flattened ones below."""
    rng = np.random.default_rng(2)
    for sharpen, sign in ((1.6, 1), (0.6, -1)):
        _, _, conf, correct, _ = predictions(rng, 50, 200, sharpen)
        assert np.sign(calibration_score_sums(conf, correct).mean()) == sign


def test_a_row_computed_by_hand() -> None:
    """p̂ = 0.75 and wrong: ln 3 · 0.75; right: −ln 3 · 0.25."""
    got = calibration_score_sums([0.75, 0.75], [0, 1])
    assert got == pytest.approx([0.75 * math.log(3), -0.25 * math.log(3)])


def test_certainty_is_held_to_epsilon() -> None:
    """p̂ = 1 and wrong costs the logit of 1 − ε, not infinity."""
    expected = math.log((1 - LOGIT_EPSILON) / LOGIT_EPSILON)
    assert calibration_score_sums([1.0], [0])[0] == pytest.approx(expected)
    assert np.isfinite(calibration_score_sums([0.0, 1.0], [1, 1])).all()


def test_rows_sum_per_document() -> None:
    """Document sums of the score add up to its total."""
    conf, correct, _, _, codes = predictions(np.random.default_rng(3), 10, 20, 1.0)
    score = calibration_score_sums(conf, correct)
    sums, counts = cluster_sums(score, codes)
    assert sums.sum() == pytest.approx(score.sum())
    assert counts.tolist() == [20] * 10


@pytest.mark.parametrize("function", [brier, calibration_score_sums])
def test_impossible_rows_are_refused(function: object) -> None:
    """Confidences outside [0, 1], correctness other than 0 or 1, NaN and lengths that differ."""
    call = function  # one of the two per-row functions
    for conf, correct, message in (
        ([1.2], [1], r"conf: must be in \[0,1\]"),
        ([0.5], [0.5], "correct: must be 0 or 1"),
        ([math.nan], [1], "conf: must be finite"),
        ([0.5, 0.5], [1], "must have one length"),
    ):
        with pytest.raises(ValueError, match=message):
            call(conf, correct)  # type: ignore[operator]
