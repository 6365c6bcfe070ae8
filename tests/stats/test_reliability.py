"""Binned calibration errors and their shifts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from evalharness.stats import (
    calibration_score_sums,
    ce2_shift,
    cluster_ratio_t,
    cluster_sums,
    ece,
    ece_shift,
)
from evalharness.stats.reliability import bin_codes
from tests.stats.streams import predictions


def test_ece_computed_by_hand() -> None:
    """Two bins: .2, .3 with one right, .8, .9 with both right: (|.5−.25| + |1−.85|)/2 = .2."""
    got = ece([0.2, 0.3, 0.8, 0.9], [1, 0, 1, 1], bins=2)
    assert got.value == pytest.approx(0.2)
    assert [(b.n, b.confidence, b.accuracy) for b in got.bins] == [
        (2, pytest.approx(0.25), 0.5),
        (2, pytest.approx(0.85), 1.0),
    ]


def test_full_confidence_is_in_the_last_bin() -> None:
    """Confidences of exactly 1 share the fifteenth bin with their neighbours."""
    conf = np.append(np.linspace(0, 1, 150), [1.0, 1.0])
    assert bin_codes(conf, 15).max() == 14
    assert len(ece(conf, np.ones(152)).bins) == 15


def test_bins_hold_equal_numbers() -> None:
    """Fifteen bins of 1,500 distinct confidences hold 100 each."""
    got = ece(np.random.default_rng(0).random(1500), np.ones(1500))
    assert [b.n for b in got.bins] == [100] * 15


def test_equal_confidences_share_a_bin() -> None:
    """A pile of equal confidences is never split, and empty bins are not returned."""
    got = ece(np.full(100, 0.7), np.arange(100) < 60)
    assert [(b.n, b.accuracy) for b in got.bins] == [(100, 0.6)]
    assert got.value == pytest.approx(0.1)


def test_row_order_changes_nothing() -> None:
    """Shuffled rows give the same bins and value."""
    rng = np.random.default_rng(1)
    conf, correct, *_ = predictions(rng, 30, 20, 1.0)
    shuffle = rng.permutation(conf.size)
    assert ece(conf[shuffle], correct[shuffle]).value == pytest.approx(ece(conf, correct).value)


@pytest.mark.parametrize(("n", "about"), [(200, 0.081), (1000, 0.037), (10_000, 0.012)])
def test_the_noise_floor_is_what_a_calibrated_model_reads(n: int, about: float) -> None:
    """Over simulated calibrated models the mean ECE is the floor, and the published figure."""
    rng = np.random.default_rng(2)
    read, floors = [], []
    for _ in range(60):
        conf = 1 / (1 + np.exp(-rng.normal(1.6, 1.0, n)))
        got = ece(conf, rng.random(n) < conf)
        read.append(got.value)
        floors.append(got.noise_floor)
    assert np.mean(read) == pytest.approx(np.mean(floors), rel=0.12)
    assert np.mean(floors) == pytest.approx(about, rel=0.15)  # v̄ = .14


def test_no_rows_have_no_ece() -> None:
    """An empty input is an error, not 0."""
    with pytest.raises(ValueError, match="conf: must hold at least one row"):
        ece([], [])


def ce2_by_pairs(conf: object, correct: object, codes: object) -> float:
    """Compute the debiased squared error from every pair of rows of different documents."""
    p, y, g = (np.asarray(a, dtype=float) for a in (conf, correct, codes))
    total = 0.0
    bins = bin_codes(p, 15)
    for b in range(15):
        rows = np.flatnonzero(bins == b)
        products = [
            (y[i] - p[i]) * (y[j] - p[j])
            for i, j in itertools.permutations(rows, 2)
            if g[i] != g[j]
        ]
        total += len(rows) / p.size * float(np.mean(products)) if products else 0.0
    return total


def test_ce2_is_a_mean_over_pairs_of_documents() -> None:
    """The shift equals brute force over all pairs of rows from different documents."""
    args = predictions(np.random.default_rng(3), 12, 15, 1.5)
    expected = ce2_by_pairs(args[2], args[3], args[4]) - ce2_by_pairs(args[0], args[1], args[4])
    assert ce2_shift(*args, 0.9).value == pytest.approx(expected)


def test_the_ce2_jackknife_leaves_each_document_out() -> None:
    """The error is that of deleting documents with the bins kept."""
    args = predictions(np.random.default_rng(4), 8, 60, 1.5)
    bins = [bin_codes(args[i], 15) for i in (0, 2)]

    def shift(keep: object) -> float:
        values = []
        for side, (p, y) in enumerate(((args[0], args[1]), (args[2], args[3]))):
            total = 0.0
            for b in range(15):
                rows = keep & (bins[side] == b)  # type: ignore[operator]
                d = np.bincount(args[4][rows], weights=(y - p)[rows], minlength=8)
                n = np.bincount(args[4][rows], minlength=8)
                total += n.sum() * (d.sum() ** 2 - d @ d) / (n.sum() ** 2 - n @ n)
            values.append(total / np.sum(keep))  # type: ignore[call-overload]
        return float(values[1] - values[0])

    left_out = np.array([shift(args[4] != g) for g in range(8)])
    expected = math.sqrt(7 / 8 * ((left_out - left_out.mean()) ** 2).sum())
    assert ce2_shift(*args, 0.9).se == pytest.approx(expected)


def test_ce2_is_unbiased_for_a_calibrated_model() -> None:
    """Against a reference that is right exactly as often, calibrated rows average 0."""
    rng = np.random.default_rng(5)
    values = []
    for _ in range(300):
        conf = rng.random((2, 300))
        right = rng.random((2, 300)) < conf
        got = ce2_shift(conf[0], right[0], conf[1], right[1], np.arange(300), 0.9)
        values.append(got.value)
    mean, error = np.mean(values), np.std(values) / math.sqrt(300)  # type: ignore[arg-type]
    assert abs(mean) < 3 * error


@pytest.mark.parametrize("function", [ece_shift, ce2_shift])
def test_swapping_the_sides_flips_the_shift(function: object) -> None:
    """The candidate's and the reference's rows exchanged negate value and ends."""
    ref, right, cand, again, codes = predictions(np.random.default_rng(6), 40, 30, 1.5)
    one = function(ref, right, cand, again, codes, 0.9)  # type: ignore[operator]
    other = function(cand, again, ref, right, codes, 0.9)  # type: ignore[operator]
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


@pytest.mark.parametrize(
    ("documents", "rows", "sharpen"), [(400, 1, 1.6), (50, 100, 1.0), (50, 100, 1.4)]
)
def test_gateable_shifts_cover(documents: int, rows: int, sharpen: float) -> None:
    """Nominal 95% intervals of ce2 and of the calibration score cover at least 92%."""
    rng = np.random.default_rng(7)
    big = predictions(np.random.default_rng(99), 2000, 300, sharpen)

    def score(args: tuple[object, ...]) -> object:
        moved = calibration_score_sums(*args[2:4]) - calibration_score_sums(*args[:2])  # type: ignore[arg-type]
        return cluster_ratio_t(*cluster_sums(moved, args[4]), 0.95)  # type: ignore[arg-type]

    for estimate in (lambda a: ce2_shift(*a, 0.95), score):
        truth = estimate(big).value  # type: ignore[attr-defined]
        found = [estimate(predictions(rng, documents, rows, sharpen)) for _ in range(200)]
        covered = np.mean([i.low <= truth <= i.high for i in found])  # type: ignore[attr-defined]
        assert covered >= 0.92


def test_the_ece_shift_hides_damage() -> None:
    """At 400 items the plug-in shift is well below the truth, and its method says so."""
    rng = np.random.default_rng(8)
    big = predictions(np.random.default_rng(99), 2000, 300, 1.4)
    found = [ece_shift(*predictions(rng, 400, 1, 1.4), 0.9, 39) for _ in range(60)]
    truth = ece(big[2], big[3]).value - ece(big[0], big[1]).value
    assert np.mean([i.value for i in found]) < 0.6 * truth  # type: ignore[arg-type]
    assert "shown, not gated" in found[0].method


def test_lengths_of_the_sides_must_agree() -> None:
    """Rows are paired one to one."""
    with pytest.raises(ValueError, match="both sides: must have one length"):
        ce2_shift([0.5, 0.6], [1, 0], [0.5], [1], [0, 1], 0.9)


@pytest.mark.parametrize("documents", [2, 3])
def test_ce2_of_pairs_that_hang_on_one_document_has_no_interval(documents: int) -> None:
    """Leaving it out leaves no pair, and errors of exactly 0: no spread."""
    random = np.random.default_rng(0)
    at = np.repeat(np.arange(documents), 40)
    conf = random.uniform(0.2, 0.9, (2, at.size))
    right = random.random((2, at.size)) < conf
    got = ce2_shift(conf[0], right[0], conf[1], right[1], at, 0.9)
    assert got.value is not None
    assert (got.low is None) == (documents == 2)
    apart = np.array([0.1, 0.4, 0.1, 0.7, 0.9, 0.7])  # the one shared bin is of documents 0 and 2
    got = ce2_shift(apart, [1, 0, 0, 1, 1, 0], apart, [0, 1, 1, 1, 0, 1], [0, 0, 2, 1, 1, 1], 0.9)
    assert got.low is None
    assert "left out" in str(got.reason)
