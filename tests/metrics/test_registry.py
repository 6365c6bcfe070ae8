"""One suite of invariances over every registered metric."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from evalharness.metrics import REGISTRY, Estimates
from evalharness.spec.slices import Subset
from evalharness.testing import Tables, check_metric, swapped, synthetic

Make = Callable[[Tables], Estimates]


@pytest.mark.parametrize("metric", list(REGISTRY))
def test_every_metric_is_what_it_declares(metric: str) -> None:
    """Identity, symmetry, order of documents, NaN, one document."""
    check_metric(metric)


@pytest.mark.parametrize("column", ["nll_cand", "kl", "conf_cand", "half_range", "total_variation"])
def test_a_nan_among_the_tokens_is_said(estimates: Make, column: str) -> None:
    """The reason of every metric that reads it says NaN."""
    tables = synthetic()
    tables["tokens"].loc[5, column] = np.nan
    found = estimates(tables)
    null = [
        e
        for id in REGISTRY
        for s in found.scopes(id)
        if (e := found.estimate(id, s, 0.95)).value is None
    ]
    assert null
    assert all("NaN" in (e.reason or "") for e in null)


def test_perplexity_ratio_inverts_when_the_sides_are_swapped(estimates: Make) -> None:
    """It is the exponential of an odd metric."""
    tables = synthetic()
    one, two = (
        estimates(t).estimate("perplexity.ratio", {}, 0.95) for t in (tables, swapped(tables))
    )
    assert one.value * two.value == pytest.approx(1)
    assert one.low * two.high == pytest.approx(1)


def test_a_slice_takes_the_documents_its_globs_match(estimates: Make) -> None:
    """Against a plain pandas selection."""
    tables = synthetic()
    found = estimates(tables).estimate("kl.mean", {"slice": "xs"}, 0.95)
    chosen = tables["documents"][tables["documents"]["attributes"].str.contains("x")]["doc"]
    rows = tables["tokens"][tables["tokens"]["doc"].isin(chosen)]
    assert found.value == pytest.approx(rows["kl"].mean(), rel=1e-6)
    assert found.clusters == len(chosen)


def test_a_task_has_the_divergence_at_its_items_positions(estimates: Make) -> None:
    """Against plain pandas; items are the clusters, and items on one passage are one."""
    tables = synthetic()
    rows = tables["item_tokens"]
    rows.loc[rows["doc_id"] < 6, "cluster"] = "passage:1"
    found = estimates(tables)
    scope = {"task": "quiz"}
    for id, value in (
        ("kl.mean", rows["kl"].mean()),
        ("kl.reverse.mean", rows["kl_reverse"].mean()),
        ("kl.p99", np.quantile(rows["kl"], 0.99)),
        ("top1.agreement", (rows["argmax_ref"] == rows["argmax_cand"]).mean()),
        ("logit.half_range", rows["half_range"].max()),
        ("logit.max_abs_diff", rows["max_abs"].max()),
    ):
        estimate = found.estimate(id, scope, 0.95)
        assert estimate.value == pytest.approx(value, rel=1e-6), id
        assert (estimate.n, estimate.clusters) == (len(rows), rows["cluster"].nunique()), id
    worst = rows.loc[rows["half_range"].idxmax()]
    assert f"task quiz, item {worst['doc_id']} position" in (
        found.estimate("logit.half_range", scope, 0.95).worst or ""
    )
    assert scope not in found.scopes("nll.shift")


def test_a_nan_on_a_task_prompt_is_never_averaged(estimates: Make) -> None:
    """The task's estimate is null; that of the texts stands."""
    tables = synthetic()
    tables["item_tokens"].loc[3, "kl"] = np.nan
    found = estimates(tables)
    for id in ("kl.mean", "kl.max", "top1.agreement"):
        estimate = found.estimate(id, {"task": "quiz"}, 0.95)
        assert (estimate.value, estimate.low) == (None, None)
        assert "NaN" in (estimate.reason or "")
        assert found.estimate(id, {}, 0.95).value is not None


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        ("nll.shift", lambda t: (t["nll_cand"] - t["nll_ref"]).mean()),
        ("perplexity.ratio", lambda t: np.exp((t["nll_cand"] - t["nll_ref"]).mean())),
        ("perplexity.candidate", lambda t: np.exp(t["nll_cand"].mean())),
        ("kl.mean", lambda t: t["kl"].mean()),
        ("kl.reverse.mean", lambda t: t["kl_reverse"].mean()),
        ("kl.median", lambda t: np.quantile(t["kl"], 0.5)),
        ("kl.p99", lambda t: np.quantile(t["kl"], 0.99)),
        ("kl.max", lambda t: t["kl"].max()),
        ("top1.agreement", lambda t: (t["argmax_ref"] == t["argmax_cand"]).mean()),
        (
            "top1.harmful",
            lambda t: ((t["argmax_ref"] == t["token"]) & (t["argmax_cand"] != t["token"])).mean(),
        ),
        (
            "top1.gained",
            lambda t: ((t["argmax_ref"] != t["token"]) & (t["argmax_cand"] == t["token"])).mean(),
        ),
        (
            "top1.net_harm",  # the fall of accuracy
            lambda t: (
                (t["argmax_ref"] == t["token"]).mean() - (t["argmax_cand"] == t["token"]).mean()
            ),
        ),
        ("acceptance.rate", lambda t: 1 - t["total_variation"].mean()),
        ("top5.overlap", lambda t: t["top5_overlap"].mean() / 5),
        (
            "prob.rms_shift",
            lambda t: np.sqrt(((np.exp(-t["nll_cand"]) - np.exp(-t["nll_ref"])) ** 2).mean()),
        ),
        ("entropy.shift", lambda t: (t["entropy_cand"] - t["entropy_ref"]).mean()),
        (
            "bits_per_byte.shift",
            lambda t: (t["nll_cand"] - t["nll_ref"]).sum() / np.log(2) / (4 * len(t)),
        ),
        ("logit.half_range", lambda t: t["half_range"].max()),
        (
            "brier.shift",
            lambda t: (
                ((t["conf_cand"] - (t["argmax_cand"] == t["token"])) ** 2).mean()
                - ((t["conf_ref"] - (t["argmax_ref"] == t["token"])) ** 2).mean()
            ),
        ),
    ],
)
def test_values_equal_plain_pandas(estimates: Make, id: str, expected: Any) -> None:
    """The definition, written down again."""
    tables = synthetic()
    found = estimates(tables).estimate(id, {}, 0.95).value
    assert found == pytest.approx(expected(tables["tokens"]), rel=1e-5)


def test_task_metrics_equal_plain_pandas(estimates: Make) -> None:
    """Shift and flips of binary items."""
    tables = synthetic()
    rows = tables["items"]
    scope = {"task": "quiz", "metric": "acc"}
    run = estimates(tables)
    shift = run.estimate("task.score.shift", scope, 0.95)
    flips = run.estimate("task.flips", scope, 0.95)
    assert shift.value == pytest.approx((rows["score_cand"] - rows["score_ref"]).mean())
    assert flips.value == pytest.approx((rows["score_cand"] != rows["score_ref"]).mean())
    assert shift.low < shift.value < shift.high


def test_a_drop_in_a_task_where_lower_is_better_counts_as_a_gain(estimates: Make) -> None:
    """The shift is signed so that higher is better, whatever the task's own direction."""
    tables = synthetic()
    tables["tasks"]["higher_is_better"] = False
    found = estimates(tables).estimate("task.score.shift", {"task": "quiz", "metric": "acc"}, 0.9)
    rows = tables["items"]
    assert found.value == pytest.approx((rows["score_ref"] - rows["score_cand"]).mean())


def test_a_slice_of_positions_takes_tokens_not_documents(estimates: Make) -> None:
    """Against a plain pandas selection; every document still counts as a cluster."""
    tables = synthetic()
    run = estimates(tables)
    run.evidence.slices["early"] = Subset("early", {"position": "0:10"})
    found = run.estimate("kl.mean", {"slice": "early"}, 0.95)
    rows = tables["tokens"][tables["tokens"]["position"] < 10]
    assert found.value == pytest.approx(rows["kl"].mean(), rel=1e-6)
    assert found.n == len(rows)
    assert found.clusters == len(tables["documents"])


def test_every_text_metric_has_an_estimate_a_slice(estimates: Make) -> None:
    """Of each value of an attribute: as if the run held those documents alone."""
    tables = synthetic()
    kind = ["odd" if d % 2 else "even" for d in tables["documents"]["doc"]]
    tables["documents"]["attributes"] = [json.dumps({"kind": k}) for k in kind]
    run = estimates(tables)
    run.evidence.run.manifest["suite"] = {"slices": [{"by": "kind"}]}
    names = [s["slice"] for s in run.scopes("kl.mean") if "slice" in s]
    assert names == ["kind=even", "kind=odd"]
    odd = dict(tables)
    for name in ("documents", "tokens"):
        odd[name] = tables[name][tables[name]["doc"] % 2 == 1]
    alone = estimates(odd)
    text = [m.id for m in REGISTRY.values() if "slice" in m.scope_keys and m.records != "layers"]
    assert len(text) > 25
    for id in text:
        bound = {"bound": REGISTRY[id].bounds[2]} if REGISTRY[id].bounds else {}
        found = run.estimate(id, {**bound, "slice": "kind=odd"}, 0.95)
        other = alone.estimate(id, bound, 0.95)
        assert (found.value, found.n) == (other.value, other.n), id


@pytest.mark.parametrize(
    ("id", "bound", "measure"),
    [
        ("logit.exceed_rate", 0.5, lambda t: t["half_range"].max()),
        ("kl.exceed_rate", 0.025, lambda t: t["kl"].mean()),
        ("nll.exceed_rate", 0.02, lambda t: (t["nll_cand"] - t["nll_ref"]).mean()),
    ],
)
def test_documents_beyond_a_bound_are_counted_once(
    estimates: Make, id: str, bound: float, measure: Any
) -> None:
    """However many of their tokens are beyond it; the interval is Clopper and Pearson's."""
    tables = synthetic()
    tables["tokens"].loc[tables["tokens"]["doc"] % 3 == 0, "kl"] *= 3
    of = pd.Series({doc: measure(rows) for doc, rows in tables["tokens"].groupby("doc")})
    found = estimates(tables).estimate(id, {"bound": str(bound)}, 0.95)
    k, n = int((of > bound).sum()), len(of)
    assert 0 < k < n or id == "logit.exceed_rate"
    expected = binomtest(k, n).proportion_ci(0.95, method="exact")
    assert found.value == k / n
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
