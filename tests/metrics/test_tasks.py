"""Right-or-wrong items that are not independent: a copy is no evidence, nor is no change seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from evalharness import stats
from evalharness.metrics import Estimates
from evalharness.spec.estimate import Estimate
from evalharness.testing import Tables, synthetic

Make = Callable[[Tables], Estimates]
SCOPE = {"task": "quiz", "metric": "acc"}
CONFIDENCE = 0.9


@pytest.fixture
def pair_of(estimates: Make) -> Callable[[pd.DataFrame], tuple[Estimate, Estimate]]:
    """Shift and flips of these items."""

    def make(items: pd.DataFrame) -> tuple[Estimate, Estimate]:
        tables = synthetic()
        tables["items"] = items
        tables["tasks"]["candidate"] = items["score_cand"].mean()
        found = estimates(tables)
        shift, flips = (
            found.estimate(id, SCOPE, CONFIDENCE) for id in ("task.score.shift", "task.flips")
        )
        return shift, flips

    return make


def copied(items: pd.DataFrame, times: int) -> pd.DataFrame:
    """Every item so often, as items that ask the same are recorded."""
    if times == 1:
        return items
    frame = pd.concat([items] * times, ignore_index=True)
    frame["cluster"] = "text:" + frame["doc_id"].astype(str)
    frame["doc_id"] = np.arange(len(frame))
    return frame


@pytest.mark.parametrize("times", [2, 5])
def test_copies_of_items_are_no_evidence(
    pair_of: Callable[[pd.DataFrame], tuple[Estimate, Estimate]], times: int
) -> None:
    """The same value, and no narrower than the items without their copies."""
    items = synthetic()["items"]
    for alone, more in zip(pair_of(items), pair_of(copied(items, times)), strict=True):
        assert more.value == pytest.approx(alone.value)
        assert (more.n, more.clusters) == (times * len(items), len(items))
        assert None not in (alone.low, alone.high, more.low, more.high)
        assert more.low <= alone.low + 1e-9
        assert more.high >= alone.high - 1e-9
        assert more.high - more.low < 1.5 * (alone.high - alone.low)


def test_one_copy_among_many_changes_little(
    pair_of: Callable[[pd.DataFrame], tuple[Estimate, Estimate]],
) -> None:
    """As little as the one item more that it is not."""
    items = synthetic()["items"]
    before = pair_of(items)
    items.loc[items.index[:2], "cluster"] = "text:0"
    for alone, more in zip(before, pair_of(items), strict=True):
        assert (more.value, more.clusters) == (alone.value, len(items) - 1)
        width = alone.high - alone.low
        assert width < more.high - more.low < 1.3 * width


@pytest.mark.parametrize("kind", ["text", "passage"])
def test_no_change_in_a_few_clusters_proves_none_in_the_rest(
    pair_of: Callable[[pd.DataFrame], tuple[Estimate, Estimate]], kind: str
) -> None:
    """Not narrower than the exact interval of as many items as there are clusters."""
    items = synthetic()["items"]
    items["score_cand"] = items["score_ref"]
    items["cluster"] = [f"{kind}:{i // 10}" for i in range(len(items))]
    shift, flips = pair_of(items)
    exact = stats.tango(0, 0, 6, CONFIDENCE)
    assert None not in (shift.low, shift.high, flips.high, exact.low, exact.high)
    assert shift.low <= exact.low < shift.value == 0.0 < exact.high <= shift.high
    assert flips.high >= stats.clopper_pearson(0, 6, CONFIDENCE).high
    assert (flips.value, flips.clusters) == (0.0, 6)


def test_effective_counts_may_be_fractions() -> None:
    """Between those of the whole numbers beside them."""
    wide, middle, narrow = (stats.tango(f * 2, f * 3, f * 50, 0.9) for f in (0.5, 0.75, 1.0))
    assert wide.value == middle.value == narrow.value
    for a, b in ((wide, middle), (middle, narrow)):
        assert None not in (a.low, b.low)
        assert a.low < b.low
    third = stats.tango(0.1, 0.2, 0.3, 0.9)  # .1 + .2 > .3
    assert third.value == pytest.approx(-1 / 3)
