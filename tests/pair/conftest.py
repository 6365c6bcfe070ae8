"""A tiny pair in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalharness.data.documents import Document
from evalharness.spec.model import ModelSpec
from evalharness.spec.suite import Suite

Load = Callable[..., Any]


@pytest.fixture
def side(tiny: Callable[..., Path]) -> Load:
    """Load a tiny model as one side; ``bits`` simulates quantisation."""

    def make(seed: int = 0, bits: int | None = None, dtype: str = "float32", **config: Any) -> Any:
        from evalharness.engines.load import load
        from evalharness.pair.side import Side

        data: dict[str, Any] = {
            "name": f"tiny{seed}-{bits}",
            "model": {"path": str(tiny(seed, **config)), "dtype": dtype, "device": "cpu"},
        }
        if bits is not None:
            data["simulate"] = {"weights": {"bits": bits, "granularity": "channel"}}
        return Side(load(ModelSpec.model_validate(data)))

    return make


@pytest.fixture
def documents() -> list[Document]:
    """Nine documents of random ids, of different lengths."""
    random = np.random.default_rng(0)
    return [
        Document(i, "c", f"d{i}", random.integers(1, 300, 20 + 11 * i), None, {}) for i in range(9)
    ]


@pytest.fixture
def suite() -> Suite:
    """Windows of 32 tokens with the layer probe on five of them."""
    return Suite.model_validate(
        {
            "name": "s",
            "corpora": [{"name": "c", "source": "python:x"}],
            "window": {"tokens": 32},
            "probes": ["layers"],
            "layers": {"windows": 5},
        }
    )
