"""What other cuts of the same tokens would save, against documents of known make."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evalharness.metrics import Estimates, Evidence
from evalharness.metrics.shorter import Shorter, shorter
from evalharness.run.directory import InMemory
from evalharness.testing.records import MANIFEST, Arrow, synthetic

LONG = 64  # tokens of each document


def of_documents(size: int, within: float, seed: int = 0) -> Estimates:
    """Documents that differ with a variance of 1, and their tokens with that of ``within``."""
    rng = np.random.default_rng(seed)
    tables = synthetic(size, damage=0.1)
    rows = tables["tokens"].iloc[np.zeros(size * LONG, dtype=int)].reset_index(drop=True)
    doc, position = np.divmod(np.arange(size * LONG), LONG)
    shift = rng.normal(0, 1, size)[doc] + math.sqrt(within) * rng.normal(0, 1, len(rows))
    rows = rows.assign(
        doc=doc, window=doc, position=position, nll_ref=3.0, nll_cand=3.0 + shift, kl=shift**2
    )
    documents = tables["documents"].assign(tokens=LONG, scored_tokens=LONG)
    found: dict[str, pd.DataFrame] = {**tables, "tokens": rows, "documents": documents}
    manifest = {**MANIFEST, "suite": {"window": {"tokens": 32, "stride": None}}}
    return Estimates(Evidence(InMemory(manifest, Arrow(found))))


def cut(found: Estimates, metrics: list[str]) -> dict[int, Shorter]:
    return {one.tokens: one for one in shorter(found, metrics)}


def test_where_documents_differ_and_their_tokens_do_not_only_documents_count() -> None:
    """Half as long and twice as many: the error is that of twice as many documents."""
    (one,) = cut(of_documents(200, within=0.0), ["nll.shift"]).values()
    assert one.tokens == 32
    assert one.documents == 2.0
    assert one.errors["nll.shift"] == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize("within", [16.0, 64.0, 1e6])
def test_the_error_is_that_of_as_many_such_documents(within: float) -> None:
    """Variances 1 + w/32 of twice as many, against 1 + w/64; nothing is won by alike tokens."""
    found = [
        cut(of_documents(400, within, seed), ["nll.shift"])[32].errors["nll.shift"]
        for seed in range(5)
    ]
    true = math.sqrt((1 + within / 32) / 2 / (1 + within / 64))
    assert float(np.mean(found)) == pytest.approx(true, rel=0.05)


def test_what_is_no_mean_over_texts_is_left_out() -> None:
    """Quantiles, tasks and layers; where nothing is left there is nothing to say."""
    others: Any = ["kl.p99", "task.score.shift", "layer.error.total", "kl.exceed_rate"]
    found = of_documents(20, 1.0)
    assert shorter(found, others) == []
    assert list(cut(found, ["kl.mean", *others, "perplexity.ratio"])[32].errors) == [
        "kl.mean",
        "perplexity.ratio",
    ]


def test_documents_no_longer_than_a_window_are_short_already() -> None:
    """Shorter than half of the least that is looked at, nothing is proposed."""
    found = of_documents(20, 1.0)
    found.evidence.run.manifest["suite"]["window"]["tokens"] = LONG
    assert list(cut(found, ["nll.shift"])) == [32]
    found.evidence.run.manifest["suite"]["window"]["tokens"] = 16
    assert shorter(found, ["nll.shift"]) == []
