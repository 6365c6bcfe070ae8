"""The noise floor on a tiny model: rounding alone, and the larger of the ways it was tried."""

from __future__ import annotations

from typing import Any

import pytest

from evalharness.data.documents import Document
from evalharness.data.windows import cut
from evalharness.metrics import REGISTRY
from evalharness.spec.suite import NoiseFloor, Suite
from evalharness.workflow.noise_floor import KERNEL, SHAPE, noise_floor


@pytest.fixture
def floor(side: Any, documents: list[Document], suite: Suite) -> Any:
    """Measure the floor of a bfloat16 model."""

    def measure(own: str, **settings: Any) -> Any:
        windows = cut(documents, suite, None)
        reference = side(dtype=own)
        before = {n: p.clone() for n, p in reference.model.named_parameters()}
        found = noise_floor(reference, documents, windows, 4, NoiseFloor(**settings))
        for name, parameter in reference.model.named_parameters():
            assert parameter.dtype == before[name].dtype
            assert parameter.equal(before[name]), name
        return found

    return measure


def test_another_dtype_is_another_way_and_the_larger_counts(floor: Any) -> None:
    """Of every metric the one further from what a model against itself should show."""
    found = floor("bfloat16", dtype="float32")
    assert list(found.ways) == [KERNEL, "computed in float32"]
    assert found.notes == []
    assert found.ways["computed in float32"]["kl.mean"] > 0
    for id, value in found.values.items():
        best = REGISTRY[id].identity
        ways = [values[id] for values in found.ways.values() if id in values]
        assert value in ways
        assert abs(value - best) == max(abs(way - best) for way in ways)


def test_shape_and_kernel_are_tried_where_no_dtype_is_named(floor: Any) -> None:
    """In float32 it is far smaller than what bfloat16 rounds away."""
    found = floor("float32")
    assert list(found.ways) == [KERNEL]
    assert 0 <= found.values["kl.mean"] < 1e-9
    assert floor("float32", dtype="bfloat16").values["kl.mean"] > 1e-6


def test_what_was_not_measured_is_said(floor: Any) -> None:
    """Never in silence."""
    assert floor("float32", dtype="float32").notes == [
        "noise floor in float32 not measured: it is the reference's own dtype"
    ]


@pytest.mark.parametrize("refuses", [True, False])
def test_where_there_is_one_kernel_the_batch_shape_alone_is_said(
    side: Any,
    documents: list[Document],
    suite: Suite,
    monkeypatch: pytest.MonkeyPatch,
    refuses: bool,
) -> None:
    """Whether the architecture refuses the other, or takes no notice of it."""

    def one_kernel(name: str) -> None:
        if refuses:
            raise ValueError(f"has no {name}")

    reference = side()
    monkeypatch.setattr(reference.model, "set_attn_implementation", one_kernel)
    windows = cut(documents, suite, None)
    assert list(noise_floor(reference, documents, windows, 4, NoiseFloor()).ways) == [SHAPE]
