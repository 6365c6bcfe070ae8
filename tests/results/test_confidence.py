"""KL by the reference's confidence, against plain pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from evalharness import stats
from evalharness.metrics import Evidence
from evalharness.report import render_html
from evalharness.results.confidence import kl_by_confidence
from evalharness.run.directory import InMemory
from evalharness.testing.records import MANIFEST, Arrow, Tables, synthetic
from tests.report.conftest import INTERNALS, make_result
from tests.report.page import Page


def evidence(tables: Tables, **manifest: object) -> Evidence:
    """The records of a run."""
    return Evidence(InMemory({**MANIFEST, **manifest}, Arrow(tables)))  # type: ignore[typeddict-item]


def test_every_token_is_in_one_tenth_of_the_confidence() -> None:
    """As pandas cuts them; each interval is the one that mean KL has on those tokens alone."""
    tables = synthetic()
    tokens = tables["tokens"]
    found = kl_by_confidence(evidence(tables))
    cut = pd.qcut(tokens["conf_ref"].astype("float32"), 10)
    expected = [rows for _, rows in tokens.groupby(cut, observed=True)]
    assert len(found) == len(expected) == 10
    for bin, rows in zip(found, expected, strict=True):
        assert bin.kl.n == len(rows)
        assert (bin.low, bin.high) == pytest.approx(
            (rows["conf_ref"].min(), rows["conf_ref"].max())
        )
        sums = rows.groupby("doc")["kl"].agg(["sum", "size"])
        mean = stats.positive_mean_t(sums["sum"], sums["size"], 0.95)
        assert (bin.kl.value, bin.kl.clusters) == (pytest.approx(mean.value), len(sums))
        assert (bin.kl.low, bin.kl.high) == pytest.approx((mean.low, mean.high), rel=1e-4)


def test_tokens_of_one_confidence_stay_together() -> None:
    """Half of them certain: there are fewer bins, and none is cut by the order of the rows."""
    tables = synthetic()
    tokens = tables["tokens"]
    tokens.loc[tokens.index[::2], "conf_ref"] = 1.0
    found = kl_by_confidence(evidence(tables))
    assert sum(bin.kl.n for bin in found) == len(tokens)
    assert [bin.low for bin in found].count(1.0) == 1
    assert found[-1].kl.n >= (tokens["conf_ref"] == 1).sum()
    tokens["conf_ref"] = 1.0
    (whole,) = kl_by_confidence(evidence(tables))
    assert whole.kl.n == len(tokens)


def test_without_a_number_at_every_token_there_is_no_table() -> None:
    """A NaN is in no tenth, and is not left out."""
    tables = synthetic()
    tables["tokens"].loc[3, "kl"] = np.nan
    assert kl_by_confidence(evidence(tables)) == []


def test_a_run_that_may_stop_early_has_no_interval_for_a_fixed_number() -> None:
    """The values stand."""
    for bin in kl_by_confidence(evidence(synthetic(), stop_early={"rule": "sequence"})):
        assert bin.kl.value is not None
        assert (bin.kl.low, bin.kl.high) == (None, None)
        assert "stopped early" in (bin.kl.reason or "")


def test_the_report_has_a_row_a_bin() -> None:
    """With its interval."""
    rules = "version: 1\ngates: [{metric: kl.mean, max: 1}]\n"
    r = make_result(rules=rules, damage=0.2, without=INTERNALS)
    assert len(r.figures.kl_by_confidence) == 10
    text = Page(render_html(r)).text
    assert "By the reference’s confidence" in text
