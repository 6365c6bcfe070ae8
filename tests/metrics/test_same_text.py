"""Documents that hold the same text are one cluster of every metric, and keep their own names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from evalharness.metrics import REGISTRY, Estimates, Evidence
from evalharness.metrics.divergence import KL_MEAN
from evalharness.metrics.paired import outcomes
from evalharness.results.chart_data import chart_data
from evalharness.run.directory import InMemory
from evalharness.testing import Tables, synthetic
from evalharness.testing.records import MANIFEST, Arrow

OF_DOCUMENTS = ("tokens", "documents", "routing", "layers", "activations")


def twice(tables: Tables) -> tuple[Tables, list[list[int]]]:
    """Every document once more under another number, and which are the same."""
    count = len(tables["documents"])
    more: Tables = {}
    for name, frame in tables.items():
        if name in OF_DOCUMENTS:
            again = frame.assign(doc=frame["doc"] + count)
            if name == "documents":
                again["id"] = again["id"] + " again"
            more[name] = pd.concat([frame, again], ignore_index=True)
        else:
            more[name] = frame
    return more, [[n, n + count] for n in range(count)]


def made(tables: Tables, same_text: list[list[int]]) -> Estimates:
    return Estimates(Evidence(InMemory({**MANIFEST, "same_text": same_text}, Arrow(tables))))


# Interpolated, or of bins with a correction by the number of tokens: twice as many move the value.
BY_NUMBER = ("ece.", "ce2.", ".p99")


@pytest.mark.parametrize("metric", [m for m in REGISTRY if REGISTRY[m].records in OF_DOCUMENTS])
def test_copies_of_documents_are_no_evidence(metric: str) -> None:
    """The estimate and its interval are those of the documents alone."""
    tables = synthetic()
    if metric.startswith("top1."):
        # Both lost and gained: where no event is seen, an interval allows for one token's.
        tokens = tables["tokens"]
        tokens["token"] = tokens["argmax_ref"].where(tokens.index % 2 == 1, tokens["argmax_cand"])
    alone, copies = made(tables, []), made(*twice(tables))
    scopes = alone.scopes(metric)
    for scope in scopes[:3] + scopes[-2:]:
        before, after = (e.estimate(metric, scope, 0.9) for e in (alone, copies))
        assert after.clusters == before.clusters
        assert (after.low is None) == (before.low is None)
        moved = any(part in metric for part in BY_NUMBER)
        if not moved:
            assert after.value == pytest.approx(before.value, rel=1e-6, abs=1e-9)
        if before.low is None or before.high is None:
            continue
        assert after.low is not None
        assert after.high is not None
        # A seeded bootstrap draws others where totals are twice as large.
        close = 0.2 if moved or "boot" in before.method else 1e-6
        width = before.high - before.low
        assert after.high - after.low == pytest.approx(width, rel=close, abs=1e-9)


def test_without_that_knowledge_intervals_are_narrower() -> None:
    """What the test above would not notice if nothing were merged."""
    tables = synthetic()
    more, same = twice(tables)
    known, unknown = (made(more, s).estimate("nll.shift", {}, 0.9) for s in (same, []))
    assert None not in (known.low, known.high, unknown.low, unknown.high)
    assert unknown.high - unknown.low < 0.8 * (known.high - known.low)
    assert (known.clusters, unknown.clusters) == (len(same), 2 * len(same))


def test_a_cluster_is_known_by_all_of_its_documents() -> None:
    """One that lost a copy is another cluster, to a stored run as well."""
    more, same = twice(synthetic())
    count = len(same)
    whole, some = (outcomes(KL_MEAN, made(more, s).evidence, {}) for s in (same, same[1:]))
    assert whole is not None
    assert some is not None
    assert (whole.keys.size, some.keys.size) == (count, count + 1)
    assert np.isin(some.keys, whole.keys).sum() == count - 1


def test_a_run_that_stopped_before_the_second_has_the_first_alone() -> None:
    """Numbers that were never measured are of no cluster."""
    tables = synthetic()
    count = len(tables["documents"])
    found = made(tables, [[1, 3], [2, count + 5]]).estimate("nll.shift", {}, 0.9)
    assert found.clusters == count - 1


def test_each_document_stays_in_the_report() -> None:
    """Under its own name, with its own tokens."""
    tables = synthetic()
    more, same = twice(tables)
    points = chart_data(made(more, same).evidence).nll_by_document
    assert [p.document for p in points] == list(more["documents"]["id"])
    counts = np.bincount(more["tokens"]["doc"])
    assert [p.tokens for p in points] == counts.tolist()
