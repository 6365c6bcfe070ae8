"""The layer probes' running sums against numpy in float64, one token at a time."""

from __future__ import annotations

from collections import Counter
from math import floor, isnan, log2

import numpy as np
import pytest
import torch

from evalharness.probes.sums import LayerSums
from evalharness.run.records import BINS, BINS_PER_OCTAVE, EDGE_MIN, LAYERS

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
    ),
]
MODULES = [("layers.0", "block", "Layer"), ("layers.0.q", "linear", "Linear")]
WIDTHS = (96, 40)
SLOTS = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1], [2, 2, 2, 2, 2, -1, -1, -1]])
POSITIONS = torch.tensor([[0, 1, 2, 3, 4, 5, 7, 8], [0, 1, 2, 3, 4, 5, 6, 7]])


def activations(seed=0, noise=1e-2, dtype=torch.bfloat16):
    """Reference, candidate and input of each module, (B, T, C)."""
    g = torch.Generator().manual_seed(seed)
    made = []
    for width in WIDTHS:
        a = torch.randn(2, 8, width, generator=g) * 3
        b = a + noise * torch.randn(2, 8, width, generator=g)
        made.append((a.to(dtype), b.to(dtype), torch.randn(2, 8, width, generator=g).to(dtype)))
    return made


def collect(device, batches, docs=SLOTS, positions=POSITIONS):
    sums = LayerSums(MODULES, 3, device)
    for made in batches:
        for index, (a, b, x) in enumerate(made):
            x = x.to(device) if index == 0 else None
            sums.add(index, a.to(device), b.to(device), docs, positions, x_ref=x)
    return sums


def bin_of(value):
    if value < EDGE_MIN:
        return 0
    return min(BINS - 1, 1 + floor(log2(value / EDGE_MIN) * BINS_PER_OCTAVE))


def oracle(batches, module, doc):
    """Every column of one module and document, in float64."""
    row = {"tokens": 0, "err_sq": 0.0, "ref_sq": 0.0, "update_sq": 0.0, "cos_sum": 0.0}
    row |= {"pos0_err_sq": 0.0, "pos0_ref_sq": 0.0, "max_abs": -1.0}
    rel, cos = Counter(), Counter()
    for made in batches:
        a, b, x = (t.double().numpy().reshape(16, -1) for t in made[module])
        for t, (s, position) in enumerate(zip(SLOTS.flatten(), POSITIONS.flatten(), strict=True)):
            if s != doc:
                continue
            d = b[t] - a[t]
            if position == 0:
                row["pos0_err_sq"] += d @ d
                row["pos0_ref_sq"] += a[t] @ a[t]
                continue
            cosine = a[t] @ b[t] / np.sqrt((a[t] @ a[t]) * (b[t] @ b[t]))
            row["tokens"] += 1
            row["err_sq"] += d @ d
            row["ref_sq"] += a[t] @ a[t]
            row["update_sq"] += (a[t] - x[t]) @ (a[t] - x[t])
            row["cos_sum"] += cosine
            rel[bin_of(np.sqrt(d @ d / (a[t] @ a[t])))] += 1
            cos[bin_of(1 - cosine)] += 1
            largest = np.abs(d).max()
            if (largest, -position) > (row["max_abs"], -row.get("max_abs_position", 99)):
                row["max_abs"] = largest
                row["max_abs_position"], row["max_abs_channel"] = int(position), np.abs(d).argmax()
    return row, rel, cos


def same_but_for_an_edge(found, expected):
    """Histograms agree up to a token that rounding moved to the neighbouring bin."""
    flat = [sorted(Counter(h).elements()) for h in (found, expected)]
    return len(flat[0]) == len(flat[1]) and np.abs(np.subtract(*flat)).max() <= 1


@pytest.mark.parametrize("device", DEVICES)
def test_sums_of_every_module_and_document_equal_those_of_float64(device):
    batches = [activations(0), activations(1)]
    table = collect(device, batches).table([10, 11, 12]).to_pylist()
    assert [(r["layer"], r["doc"]) for r in table] == [
        (m, d) for m in ("layers.0", "layers.0.q") for d in (10, 11, 12)
    ]
    for row in table:
        module = 0 if row["kind"] == "block" else 1
        expected, rel, cos = oracle(batches, module, row["doc"] - 10)
        if module == 1:
            assert row["update_sq"] is None
            del expected["update_sq"]
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=2e-6), name
        assert same_but_for_an_edge(dict(zip(row["rel_bins"], row["rel_counts"], strict=True)), rel)
        assert same_but_for_an_edge(dict(zip(row["cos_bins"], row["cos_counts"], strict=True)), cos)


@pytest.mark.parametrize("device", DEVICES)
def test_identical_activations_differ_by_exactly_nothing(device):
    made = [(a, a.clone(), x) for a, _, x in activations()]
    for row in collect(device, [made]).table([0, 1, 2]).to_pylist():
        assert row["err_sq"] == row["pos0_err_sq"] == row["max_abs"] == 0
        assert row["cos_sum"] == row["tokens"]
        assert row["rel_bins"] == row["cos_bins"] == [0]
        assert row["rel_counts"] == row["cos_counts"] == [row["tokens"]]


@pytest.mark.parametrize("device", DEVICES)
def test_the_cosine_keeps_its_precision_when_the_models_nearly_agree(device):
    made = activations(noise=1e-5, dtype=torch.float32)
    for row in collect(device, [made]).table([0, 1, 2]).to_pylist():
        _, _, cos = oracle([made], 0 if row["kind"] == "block" else 1, row["doc"])
        assert same_but_for_an_edge(dict(zip(row["cos_bins"], row["cos_counts"], strict=True)), cos)


@pytest.mark.parametrize("device", DEVICES)
def test_a_nan_or_an_infinity_spoils_its_own_module_and_document_alone(device):
    made = activations()
    made[0][1][0, 2, 3] = torch.nan
    made[1][0][1, 0, 0] = -torch.inf  # position 0 counts as well
    sums = collect(device, [made])
    bad = {(r["layer"], r["doc"]) for r in sums.table([0, 1, 2]).to_pylist() if isnan(r["err_sq"])}
    assert bad == {("layers.0", 0), ("layers.0.q", 2)}


@pytest.mark.parametrize("device", DEVICES)
def test_padding_may_hold_anything(device):
    made = activations()
    clean = collect(device, [made]).table([0, 1, 2])
    for a, b, _ in made:
        a[1, 5:], b[1, 6:] = torch.nan, 1e30
    sums = collect(device, [made])
    assert sums.table([0, 1, 2]) == clean


def test_two_batches_add_up_and_reading_out_starts_anew():
    sums = collect("cpu", [activations(0), activations(0)])
    twice = sums.table([0, 1, 2]).to_pylist()
    once = collect("cpu", [activations(0)]).table([0, 1, 2]).to_pylist()
    assert [r["err_sq"] for r in twice] == [2 * r["err_sq"] for r in once]
    assert [r["tokens"] for r in twice] == [2 * r["tokens"] for r in once]
    assert [r["max_abs"] for r in twice] == [r["max_abs"] for r in once]
    assert sums.table([0, 1, 2]).num_rows == 0


def test_the_table_has_the_schema_of_the_records():
    assert collect("cpu", [activations()]).table([0, 1, 2]).schema == LAYERS


def test_the_largest_difference_goes_to_the_lowest_position_and_channel_among_ties():
    made = activations(noise=0)
    for t in (5, 3):
        made[0][1][0, t, 7] += 64
        made[0][1][0, t, 9] += 64
    made[0][0][0, :, 7] = made[0][0][0, :, 9] = 0
    made[0][1][0, :, 7] = made[0][1][0, :, 9] = 0
    made[0][1][0, 3, 7] = made[0][1][0, 3, 9] = made[0][1][0, 5, 7] = 64
    row = collect("cpu", [made]).table([0, 1, 2]).to_pylist()[0]
    assert (row["max_abs"], row["max_abs_position"], row["max_abs_channel"]) == (64, 3, 7)


def test_a_few_tokens_may_belong_to_any_of_many_documents():
    """The last piece of a batch can hold fewer tokens than the block has documents."""
    sums = LayerSums(MODULES[:1], 40, "cpu")
    a = torch.ones(1, 3, 8)
    sums.add(0, a, 2 * a, torch.tensor([[39, 7, 39]]), torch.tensor([[4, 5, 6]]))
    table = sums.table(range(40)).to_pydict()
    assert table["doc"] == [7, 39]
    assert table["max_abs_position"] == [5, 4]


def test_a_zero_vector_against_another_counts_as_orthogonal():
    made = activations()
    a = torch.zeros_like(made[0][0])
    row = collect("cpu", [[(a, a + 1, a), made[1]]]).table([0, 1, 2]).to_pylist()[0]
    assert row["cos_sum"] == 0
    assert row["rel_bins"] == [BINS - 1]


def test_a_module_with_another_number_of_rows_is_refused():
    sums = LayerSums(MODULES, 3, "cpu")
    with pytest.raises(ValueError, match="one row for each of the 16 tokens"):
        sums.add(0, torch.zeros(2, 7, 4), torch.zeros(2, 7, 4), SLOTS, POSITIONS)
