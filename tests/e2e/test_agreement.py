"""Independent agreement on the real pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evalharness import stats
from evalharness.data.documents import read_texts, tokenize
from evalharness.spec.suite import Suite
from tests.pair.texts.test_token_pass import brute_force, measure

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def both(real_pair: Any) -> tuple[Any, Any]:
    """Token records of the pass and of brute force on a few real documents."""
    reference, candidate = real_pair
    suite = Suite.model_validate(
        {
            "name": "s",
            "corpora": [
                {
                    "name": "pydoc",
                    "source": "python:pydoc_data.topics",
                    "documents": 4,
                    "max_windows": 1,
                }
            ],
            "window": {"tokens": 96},
        }
    )
    documents = tokenize(
        read_texts(suite)[0], suite, reference.loaded.tokenizer, reference.vocab_size
    )
    return (
        measure(reference, candidate, documents, suite)["tokens"],
        brute_force(reference, candidate, documents, suite),
    )


def test_token_metrics_equal_brute_force(both: Any) -> None:
    """Relative 1e-5 on every mean, identical arg-maxes."""
    found, expected = (x.sort_values(["doc", "position"], ignore_index=True) for x in both)
    assert len(found) == len(expected) > 300
    for column in (
        "nll_ref",
        "nll_cand",
        "kl",
        "kl_reverse",
        "total_variation",
        "entropy_ref",
        "entropy_cand",
        "conf_ref",
        "conf_cand",
        "half_range",
        "max_abs",
    ):
        assert found[column].astype("float64").mean() == pytest.approx(
            expected[column].mean(), rel=1e-5
        ), column
    for column in ("argmax_ref", "argmax_cand", "top5_overlap", "token"):
        assert (found[column] == expected[column]).all(), column
    for q in (0.5, 0.99):
        assert np.quantile(found["kl"], q) == pytest.approx(
            np.quantile(expected["kl"], q), rel=1e-4
        )


def test_ece_equals_a_brute_force_over_equal_mass_bins(both: Any) -> None:
    """Bins cut by hand from the sorted confidences, fifteen of nearly equal size."""
    found, _ = both
    confidence = found["conf_cand"].to_numpy(float)
    correct = (found["argmax_cand"] == found["token"]).to_numpy(float)
    order = np.argsort(confidence, kind="stable")
    total = sum(
        abs(confidence[part].mean() - correct[part].mean()) * len(part)
        for part in np.array_split(order, 15)
    )
    assert stats.ece(confidence, correct).value == pytest.approx(total / len(order), abs=2e-3)
