"""The noise floor on a tiny model: rounding alone, and the larger of the ways it was tried."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evalharness.data.documents import Document
from evalharness.data.windows import cut
from evalharness.gates import decide
from evalharness.metrics import REGISTRY
from evalharness.spec.suite import NoiseFloor, Suite
from evalharness.testing.records import estimates, synthetic
from evalharness.workflow import noise_floor as module
from evalharness.workflow.noise_floor import KERNEL, SHAPE, Floor, floors, noise_floor, of_both
from tests.gates.fakes import FakeEstimates, estimate, gate


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
    assert {"nll.shift", "perplexity.ratio", "kl.mean"} <= found.values.keys()
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


@pytest.mark.parametrize("true", [0.0, 2e-4, -1e-3])
@pytest.mark.parametrize("heavy", [False, True])
def test_the_floor_of_a_signed_metric_covers_the_noise(
    monkeypatch: pytest.MonkeyPatch, true: float, heavy: bool
) -> None:
    """With 95% over samples of 8 documents, where the value alone is below it in many of them."""
    monkeypatch.setattr(module, "REGISTRY", {"nll.shift": REGISTRY["nll.shift"]})
    tables, random = synthetic(8, damage=0.0), np.random.default_rng(1)
    tokens, runs, within, below = tables["tokens"], 300, 0, 0
    for _ in range(runs):
        document = random.standard_t(3, 8) if heavy else random.standard_normal(8)
        noise = true + 1e-3 * document[tokens["doc"]] + 0.01 * random.standard_normal(len(tokens))
        moved = tokens.assign(nll_cand=tokens["nll_ref"] + noise)
        found = floors(estimates({**tables, "tokens": moved}))["nll.shift"]
        within += abs(float(found)) >= abs(true)
        below += abs(float(noise.mean())) < abs(true)
    assert within >= runs * (0.95 - 2 * np.sqrt(0.05 * 0.95 / runs))
    assert true == 0.0 or below > runs / 10


def test_one_document_gives_a_signed_metric_no_floor_and_its_gates_no_pass(
    side: Any, documents: list[Document], suite: Suite
) -> None:
    """It is said, and a divergence, which is no draw near 0, keeps its floor."""
    windows = [w for w in cut(documents, suite, None) if w.document == 0]
    found = noise_floor(side(), documents, windows, 4, NoiseFloor())
    assert "nll.shift" in found.missing
    assert "kl.mean" in found.values
    assert "nll.shift" not in found.values
    assert any("nll.shift" in note and "one document" in note for note in found.notes)
    unknown = estimates(synthetic(damage=0.0))
    assert decide(gate("metric: nll.shift, max: 0.5, min_n: 2"), unknown).verdict == "PASS"
    unknown.noise_missing = found.missing
    result = decide(gate("metric: nll.shift, max: 0.5, min_n: 2"), unknown)
    assert result.verdict == "INCONCLUSIVE"
    assert "its noise floor was not measured" in result.gates[0].reason


def test_the_sample_is_of_as_many_documents_as_there_are(
    documents: list[Document], suite: Suite
) -> None:
    """An interval is over documents: one window of each, before a second of any."""
    windows = cut(documents, suite, None)
    assert len({w.document for w in windows}) < len(windows), "some document has two"
    many = len({w.document for w in windows})
    assert [w.document for w in module._sample(windows, many)] == sorted(
        {w.document for w in windows}
    )
    assert module._sample(windows, len(windows) + 5) == windows


def test_no_spread_for_lack_of_data_is_no_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interval of no width says that nothing is known, but where nothing moved at all."""
    monkeypatch.setattr(module, "REGISTRY", {"nll.shift": REGISTRY["nll.shift"]})
    tables = synthetic(4, damage=0.0)
    assert floors(estimates(tables)) == {"nll.shift": 0.0}
    same = tables | {"tokens": tables["tokens"].assign(nll_ref=0.0, nll_cand=0.25)}
    assert "no variation seen" in str(floors(estimates(same))["nll.shift"])
    flat: Any = FakeEstimates(estimate("nll.shift", 0.25, 0.25, 0.25))
    assert floors(flat) == {"nll.shift": "the documents of its sample show no spread"}


def test_of_both_sides_the_larger_counts_and_what_one_lacks_is_lacking() -> None:
    """Whichever side is the noisier; a metric without a floor on either side has none."""
    mine = Floor({"kl.mean": 1e-6}, {"shape": {"kl.mean": 1e-6, "nll.shift": 0.1}}, ["a"])
    theirs = Floor({}, {"chunks": {"kl.mean": 2e-6, "nll.shift": -0.2}}, ["b"], {"nll.shift": "w"})
    found = of_both(mine, "q8", theirs)
    assert found.values == {"kl.mean": 2e-6}
    assert list(found.ways) == ["shape", "q8, chunks"]
    assert found.notes == ["a", "q8: b"]
    assert found.missing == {"nll.shift": "w"}
    quiet = Floor({}, {"chunks": {"kl.mean": 0.0}})
    assert of_both(mine, "q8", quiet).values == {"kl.mean": 1e-6, "nll.shift": 0.1}
