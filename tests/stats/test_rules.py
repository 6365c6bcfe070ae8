"""Rules that hold for every estimator, checked over all of them at once."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evalharness import stats
from evalharness.stats import Interval

Estimator = Callable[..., Interval]


def sides(values: Any, codes: Any) -> tuple[Any, ...]:
    """Use values as both sides' confidences, right about as often as they say."""
    right = (np.arange(np.size(values)) * 0.618034 % 1 < values).astype(float)
    return values, right, values, right, codes


def totals(values: Any, codes: Any) -> tuple[Any, Any]:
    return np.bincount(codes, weights=values), np.bincount(codes)


def histograms(values: Any, codes: Any) -> tuple[Any, Any]:
    """Put values on four log bins by document."""
    edges = np.array([0, 1e-3, 0.1, 0.5, 2.0])
    bins = np.searchsorted(edges, values, side="right") - 1
    shape = (int(codes.max()) + 1, 4)
    return np.bincount(codes * 4 + bins, minlength=shape[0] * 4).reshape(shape), edges


# every public function that returns an Interval from data: how rows in [0, 1] become its input
ESTIMATORS: dict[str, tuple[Estimator, Callable[[Any, Any], tuple[Any, ...]]]] = {
    "cluster_ratio_t": (stats.cluster_ratio_t, totals),
    "cluster_skew_t": (stats.cluster_skew_t, totals),
    "positive_mean_t": (stats.positive_mean_t, totals),
    "rms_t": (stats.rms_t, totals),
    "rate_t": (stats.rate_t, totals),
    "bounded_mean_t": (
        lambda s, n, confidence: stats.bounded_mean_t(s, n, confidence, 0.0, 1.0),
        totals,
    ),
    "quantile_bootstrap": (
        lambda v, c, confidence: stats.quantile_bootstrap(v, c, 0.5, confidence),
        lambda v, c: (v, c),
    ),
    "histogram_quantile_bootstrap": (
        lambda h, e, confidence: stats.histogram_quantile_bootstrap(h, e, 0.5, confidence),
        histograms,
    ),
    "ece_shift": (stats.ece_shift, sides),
    "ce2_shift": (stats.ce2_shift, sides),
    "temperature_shift": (stats.temperature_shift, sides),
    "mean_sequence": (
        lambda s, n, confidence: stats.mean_sequence(s, n, confidence, 100),
        totals,
    ),
    "rate_sequence": (
        lambda s, n, confidence: stats.rate_sequence(s, n, confidence, 1000),
        totals,
    ),
}
# have their own files
FROM_COUNTS = {"tango", "paired_shift", "clopper_pearson", "exp_interval"}
FROM_INTERVALS = {"sequence_of", "mean_of_parts", "no_narrower", "within"}
FROM_PROCESSES = {"process_ratio_t"}
every = pytest.mark.parametrize("name", ESTIMATORS)


def estimate(name: str, values: Any, codes: Any, confidence: float = 0.95) -> Interval:
    estimator, prepare = ESTIMATORS[name]
    return estimator(*prepare(np.asarray(values, dtype=float), np.asarray(codes)), confidence)


def some_rows() -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(40), rng.integers(3, 9, 40))
    return np.clip(rng.beta(2, 2, codes.size) + rng.normal(0, 0.05, 40)[codes], 0.01, 0.99), codes


def test_every_estimator_is_listed_here() -> None:
    """A public function that returns an Interval and is not in the table fails this test."""
    returning = {
        name
        for name in stats.__all__
        if inspect.isfunction(getattr(stats, name))
        and inspect.signature(getattr(stats, name)).return_annotation == "Interval"
    }
    assert returning == set(ESTIMATORS) | FROM_COUNTS | FROM_INTERVALS | FROM_PROCESSES


@every
def test_a_typical_estimate_lies_inside_its_interval(name: str) -> None:
    """low <= value <= high, with the tokens and documents counted."""
    values, codes = some_rows()
    got = estimate(name, values, codes)
    assert got.value is not None
    assert got.low is not None
    assert got.high is not None
    assert got.low <= got.value <= got.high
    assert (got.n, got.clusters) == (codes.size, 40)


@every
def test_one_document_gives_no_interval(name: str) -> None:
    """With a single document there is a reason instead of a standard error of 0."""
    got = estimate(name, [0.2, 0.4, 0.9, 0.6], [0, 0, 0, 0])
    assert (got.low, got.high, got.se) == (None, None, None)
    assert got.reason
    assert got.clusters == 1


@every
def test_no_document_gives_no_value(name: str) -> None:
    """Without data there is neither value nor interval, and no error."""
    if name == "histogram_quantile_bootstrap":
        got = stats.histogram_quantile_bootstrap(np.zeros((2, 1)), [0, 1], 0.5, 0.95)
    else:
        got = estimate(name, [], np.zeros(0, dtype=int))
    assert (got.value, got.low, got.n, got.clusters) == (None, None, 0, 0)
    assert got.reason == "no document has a scored token"


@every
def test_a_percentage_is_refused(name: str) -> None:
    """A confidence of 95 is an error that says what it must be."""
    values, codes = some_rows()
    with pytest.raises(ValueError, match=re.escape("confidence: must be in (0,1), got 95")):
        estimate(name, values, codes, 95)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(name: str, bad: float) -> None:
    """A value that is not finite raises and is never averaged away."""
    values, codes = some_rows()
    estimator, prepare = ESTIMATORS[name]
    arguments = [np.array(a, dtype=float) for a in prepare(values, codes)[:1]]
    arguments[0].flat[5] = bad
    with pytest.raises(ValueError, match=r"must be (finite|at least 0)"):
        estimator(*arguments, *prepare(values, codes)[1:], 0.95)


@every
def test_document_order_changes_nothing(name: str) -> None:
    """Renumbering the documents gives the same estimate to the last digits."""
    if name == "rate_sequence":
        pytest.skip("a betting sequence holds for the order in which documents were drawn")
    values, codes = some_rows()
    renumbered = np.random.default_rng(1).permutation(40)[codes]
    here, there = estimate(name, values, codes), estimate(name, values, renumbered)
    assert (there.low, there.value, there.high) == pytest.approx(
        (here.low, here.value, here.high), rel=1e-12, abs=1e-15
    )


@every
def test_a_higher_confidence_is_not_narrower(name: str) -> None:
    """A 99% interval contains the 90% interval."""
    values, codes = some_rows()
    wide, narrow = estimate(name, values, codes, 0.99), estimate(name, values, codes, 0.9)
    assert wide.low is not None
    assert wide.high is not None
    assert narrow.low is not None
    assert narrow.high is not None
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


@pytest.mark.parametrize("name", ["ece_shift", "ce2_shift", "temperature_shift"])
def test_a_model_against_itself_has_no_shift(name: str) -> None:
    """Identical sides give exactly 0 with the interval [0, 0]."""
    got = estimate(name, *some_rows())
    assert (got.value, got.low, got.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "name",
    [
        "cluster_ratio_t",
        "rms_t",
        "quantile_bootstrap",
        "histogram_quantile_bootstrap",
        "cluster_skew_t",
        "positive_mean_t",
        "mean_sequence",
    ],
)
def test_documents_without_any_difference_give_exactly_0(name: str) -> None:
    """All zeros over two documents or more are 0 with the interval [0, 0]."""
    got = estimate(name, np.zeros(80), np.repeat(np.arange(40), 2))
    assert (got.value, got.low, got.high) == (0.0, 0.0, 0.0)


def test_the_package_is_light() -> None:
    """Importing it loads neither torch, pandas nor the slow parts of scipy."""
    code = (
        "import sys, evalharness.stats as s;"
        "print([m for m in ('torch','pandas','scipy.stats','scipy.optimize','sklearn',"
        "'statsmodels') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_exported_exists() -> None:
    """The names in __all__ can all be had and are each listed once."""
    assert all(hasattr(stats, name) for name in stats.__all__)
    assert len(set(stats.__all__)) == len(stats.__all__)
