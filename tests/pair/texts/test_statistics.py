"""Token statistics against a float64 oracle and the properties any pair must have."""

from __future__ import annotations

import pytest
import torch

from evalharness.pair.texts import statistics
from evalharness.pair.texts.statistics import FIELDS, token_statistics
from evalharness.pair.texts.statistics_cpu import fused_sums

PATHS = [
    "plain",
    "fused",  # the loop that is compiled for long runs, run as it stands
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
    ),
]
SIDES = [("nll_ref", "nll_cand"), ("kl", "kl_reverse"), ("entropy_ref", "entropy_cand")]
SIDES += [("conf_ref", "conf_cand"), ("argmax_ref", "argmax_cand"), ("bad_ref", "bad_cand")]
REAL = ("nll_ref", "nll_cand", "kl", "kl_reverse", "entropy_ref", "entropy_cand", "conf_ref")
REAL += ("conf_cand", "max_abs", "half_range", "total_variation")


@pytest.fixture(params=PATHS)
def measure(request, monkeypatch):
    """`token_statistics` by one of its ways; results on the CPU."""
    if request.param == "fused":
        monkeypatch.setattr(statistics, "_compiled_sums", lambda: fused_sums)
        monkeypatch.setattr(statistics, "COMPILED_ROWS", 1)

    def run(z, w, target):
        if request.param == "cuda":
            z, w, target = z.cuda(), w.cuda(), target.cuda()
        found = token_statistics(z, w, target, compiled=request.param == "fused")
        return {name: value.cpu() for name, value in found.items()}

    return run


def logits(rows, vocabulary, noise, dtype=torch.float32, seed=0):
    """Logits like a language model's (a few likely tokens, a long tail), a noisy copy, targets."""
    g = torch.Generator().manual_seed(seed)
    z = 2.5 * torch.randn(rows, vocabulary, generator=g) - 4
    likely = torch.randint(vocabulary, (rows, 20), generator=g)
    z.scatter_(1, likely, 12 * torch.rand(rows, 20, generator=g))
    w = z + noise * torch.randn(rows, vocabulary, generator=g)
    target = torch.randint(vocabulary, (rows,), generator=g)
    return z.to(dtype), w.to(dtype), target


def oracle(z, w, target):
    """Every field in float64, from the definitions; ties by a stable sort."""
    z, w = z.double(), w.double()
    log_p, log_q = z.log_softmax(1), w.log_softmax(1)
    p, q, delta = log_p.exp(), log_q.exp(), w - z
    order_z, order_w, order_d = (
        x.sort(dim=1, descending=True, stable=True).indices for x in (z, w, delta.abs())
    )
    top = [[set(row[:5].tolist()) for row in order] for order in (order_z, order_w)]
    at = target[:, None]
    return {
        "nll_ref": -log_p.gather(1, at)[:, 0],
        "nll_cand": -log_q.gather(1, at)[:, 0],
        "kl": (p * (log_p - log_q)).sum(1),
        "kl_reverse": (q * (log_q - log_p)).sum(1),
        "total_variation": 1 - torch.minimum(p, q).sum(1),
        "entropy_ref": -(p * log_p).sum(1),
        "entropy_cand": -(q * log_q).sum(1),
        "conf_ref": p.amax(1),
        "conf_cand": q.amax(1),
        "argmax_ref": order_z[:, 0],
        "argmax_cand": order_w[:, 0],
        "top5_overlap": torch.tensor([len(a & b) for a, b in zip(*top)]),
        "max_abs": delta.abs().amax(1),
        "max_abs_token": order_d[:, 0],
        "half_range": (delta.amax(1) - delta.amin(1)) / 2,
        "bad_ref": torch.zeros(len(z), dtype=torch.bool),
        "bad_cand": torch.zeros(len(z), dtype=torch.bool),
    }


def assert_close(found, expected, rel=2e-5, absolute=1e-5):
    assert list(found) == list(FIELDS)
    for name, value in expected.items():
        if name in REAL:
            torch.testing.assert_close(
                found[name].double(),
                value,
                rtol=rel,
                atol=absolute,
                msg=lambda m, n=name: f"{n}: {m}",
            )
        else:
            assert found[name].tolist() == value.tolist(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("vocabulary", [3, 7, 128, 1000, 4096])
@pytest.mark.parametrize("noise", [0.01, 0.3, 3.0])
def test_every_field_equals_float64(measure, vocabulary, noise, dtype):
    z, w, target = logits(6, vocabulary, noise, dtype)
    assert_close(measure(z, w, target), oracle(z, w, target))


@pytest.mark.parametrize("vocabulary", [300, 3000])
def test_logits_in_float64_are_ranked_as_in_float32(measure, vocabulary):
    z, w, target = logits(6, vocabulary, 0.3)
    wide = measure(z.double(), w.double(), target)
    narrow = measure(z, w, target)
    for name in ("argmax_ref", "argmax_cand", "top5_overlap", "max_abs_token"):
        assert wide[name].tolist() == narrow[name].tolist()


@pytest.mark.parametrize("vocabulary", [50257, 128256])
def test_every_field_equals_float64_at_the_vocabulary_of_a_real_model(measure, vocabulary):
    z, w, target = logits(16, vocabulary, 0.1, torch.bfloat16)
    found, expected = measure(z, w, target), oracle(z, w, target)
    assert_close(found, expected)
    assert float(found["kl"].double().mean()) == pytest.approx(
        float(expected["kl"].mean()), rel=1e-5
    )


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_kl_keeps_its_precision_when_the_models_nearly_agree(measure, shift):
    z, w, target = logits(32, 4096, 1.5e-3)
    z = (z * 1024).round() / 1024  # so that the shift itself loses nothing
    w = (w * 2**16).round() / 2**16 + shift
    found, expected = measure(z, w, target), oracle(z, w, target)
    assert 1e-7 < expected["kl"].mean() < 2e-6
    for name in ("kl", "kl_reverse"):
        torch.testing.assert_close(found[name].double(), expected[name], rtol=5e-4, atol=0)
        assert float(found[name].double().mean()) == pytest.approx(
            float(expected[name].mean()), rel=3e-5
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_model_against_itself_is_exactly_zero_apart(measure, dtype):
    z, _, target = logits(5, 1000, 0.0, dtype)
    found = measure(z, z.clone(), target)
    for name in ("kl", "kl_reverse", "total_variation", "max_abs", "half_range"):
        assert found[name].tolist() == [0.0] * 5
    assert found["argmax_ref"].tolist() == found["argmax_cand"].tolist()
    assert found["top5_overlap"].tolist() == [5] * 5
    for a, b in SIDES:
        assert torch.equal(found[a], found[b])


def test_swapping_the_sides_swaps_the_fields(measure):
    z, w, target = logits(5, 1000, 0.5, torch.bfloat16)
    there, back = measure(z, w, target), measure(w, z, target)
    assert_close(back, {k: there[swapped].double() for k, swapped in _swapped().items()})


def _swapped():
    names = {name: name for name in FIELDS}
    return names | dict(SIDES) | {b: a for a, b in SIDES}


def test_the_order_of_the_vocabulary_does_not_matter(measure):
    z, w, target = logits(5, 1000, 0.5)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    place = order.argsort()  # token t is at place[t] now
    before, after = measure(z, w, target), measure(z[:, order], w[:, order], place[target])
    ids = ("argmax_ref", "argmax_cand", "max_abs_token")
    assert_close(after, {k: place[v.long()] if k in ids else v.double() for k, v in before.items()})


def test_a_constant_added_to_a_row_changes_nothing_but_the_largest_difference(measure):
    z, w, target = logits(5, 1000, 0.5)
    before, after = measure(z, w, target), measure(z, w + 8, target)
    expected = {k: v.double() for k, v in before.items() if not k.startswith("max_abs")}
    assert_close(after | {k: before[k] for k in ("max_abs", "max_abs_token")}, expected)
    assert torch.all(after["max_abs"] > 8)


@pytest.mark.parametrize("vocabulary", [5, 128, 129, 1000, 5000])
def test_ties_go_to_the_lowest_id(measure, vocabulary):
    target = torch.zeros(3, dtype=torch.int64)
    z = torch.zeros(3, vocabulary, dtype=torch.bfloat16)
    w = z.clone()
    # Row 0: all tie. Row 1: the last two do, and the differences with them. Row 2: −0 is 0.
    z[1, -2:], w[1, -2:] = 5, 9
    z[2, ::2] = -0.0
    found = measure(z, w, target)
    assert found["argmax_ref"].tolist() == [0, vocabulary - 2, 0]
    assert found["argmax_cand"].tolist() == [0, vocabulary - 2, 0]
    assert found["max_abs_token"].tolist() == [0, vocabulary - 2, 0]
    assert found["top5_overlap"].tolist() == [5, 5, 5]


def test_the_fifth_place_goes_to_the_lowest_id_among_ties(measure):
    z = torch.zeros(1, 3000)
    z[0, [2999, 2500, 2000, 1500]] = torch.tensor([9.0, 8.0, 7.0, 6.0])
    z[0, [1100, 140, 700]] = 5.0
    w = z.clone()
    w[0, [2999, 2500, 2000, 1500, 700]] = torch.tensor([0.0, 0.0, 0.0, 0.0, 4.0])
    w[0, [5, 6, 7, 8]] = 4.0  # its five: 140 and 1100 at 5, then 5, 6, 7
    assert measure(z, w, torch.tensor([0]))["top5_overlap"].tolist() == [1]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("at", [0, 500, 999])
def test_a_row_that_is_not_finite_is_flagged_on_its_side_alone(measure, value, at):
    z, w, target = logits(4, 1000, 0.1, torch.bfloat16)
    expected = oracle(z, w, target)
    z[0, at], w[1, at] = value, value
    z[2, at], w[2, at] = value, value
    found = measure(z, w, target)
    assert found["bad_ref"].tolist() == [True, False, True, False]
    assert found["bad_cand"].tolist() == [False, True, True, False]
    last = {k: v[3:] for k, v in found.items()}
    assert_close(last, {k: v[3:] for k, v in expected.items()})


def test_models_that_have_nothing_in_common_have_a_finite_large_kl(measure):
    z, w, target = logits(3, 1000, 0.0)
    z[:, 10], w[:, 20] = 150, 150  # e to the difference of these overflows
    assert_close(measure(z, w, target), oracle(z, w, target))


def test_rows_need_not_be_contiguous(measure):
    z, w, target = logits(12, 1000, 0.1)
    wide = torch.stack([z, w], 2)
    found = measure(wide[::3, :, 0], wide[::3, :, 1], target[::3])
    assert_close(found, oracle(z[::3], w[::3], target[::3]))


def test_one_side_may_be_of_another_dtype(measure):
    z, w, target = logits(3, 1000, 0.1)
    z, w = z.bfloat16(), w.half()
    assert_close(measure(z, w, target), oracle(z, w, target))


def test_no_positions_give_no_rows_of_the_same_types(measure):
    z, w, target = logits(1, 300, 0.1)
    one, none = measure(z, w, target), measure(z[:0], w[:0], target[:0])
    assert {k: (v.dtype, v.shape) for k, v in none.items()} == {
        k: (v.dtype, torch.Size([0])) for k, v in one.items()
    }


def test_sides_of_different_vocabularies_are_refused():
    z, w, target = logits(2, 300, 0.1)
    with pytest.raises(ValueError, match=r"same vocabulary for each target \(got \(2, 300\)"):
        token_statistics(z, w[:, :299], target)


@pytest.mark.e2e  # compiling takes 10 s
def test_the_compiled_loop_gives_what_plain_torch_gives():
    z, w, target = logits(64 + 3, 640, 0.1, torch.bfloat16)
    found, plain = token_statistics(z, w, target, compiled=True), token_statistics(z, w, target)
    assert_close(found, {k: v.double() for k, v in plain.items()})


def test_only_a_long_run_on_a_cpu_is_worth_compiling():
    assert statistics.worth_compiling(10**6, 49152, "cpu")
    assert not statistics.worth_compiling(10**3, 49152, "cpu")
    assert not statistics.worth_compiling(10**6, 49152, "cuda")


def test_rows_that_fill_no_compiled_block_are_measured_once_and_in_place(monkeypatch):
    """The last block overlaps the one before; every row is what it is alone."""
    monkeypatch.setattr(statistics, "_compiled_sums", lambda: fused_sums)
    monkeypatch.setattr(statistics, "COMPILED_ROWS", 4)
    z, w, target = logits(11, 300, 0.3)
    whole = token_statistics(z, w, target, compiled=True)
    for n in range(3, 12):
        part = token_statistics(z[:n], w[:n], target[:n], compiled=True)
        for name in FIELDS:
            torch.testing.assert_close(part[name], whole[name][:n], rtol=1e-5, atol=1e-6)
