"""Both sides in one pass: the pair's statistics at every scored position."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pair.tasks.both_ways import architecture, assert_same, both_ways
from tests.pair.tasks.lm_sides import prepare, side

Tiny = Callable[..., Path]


def test_the_pass_yields_the_divergence_at_each_scored_position(tiny: Tiny) -> None:
    """KL, half-range, arg-max, entropy, once an item and position; by float64 over plain rows."""
    import torch

    from evalharness.pair.tasks.run import run_tasks

    pair = side(tiny, 0), side(tiny, 1)
    prepared = prepare("choose.yaml", limit=4, seed=2)
    (run,) = run_tasks(*pair, prepared, batch_size=2)
    encode = pair[0].tokenizer.encode
    expected: dict[tuple[int, int], list[tuple[float, ...]]] = {}
    seen = set()
    for instance in prepared.tasks[0].task.instances:
        context, whole = encode(instance.args[0]), encode(instance.args[0] + instance.args[1])
        with torch.no_grad():
            z, w = (s.model(torch.tensor([whole])).logits[0].double() for s in pair)
        for at in range(len(context), len(whole)):
            item = prepared.tasks[0].samples[instance.doc_id]
            if (item, tuple(whole[:at])) in seen:
                continue
            seen.add((item, tuple(whole[:at])))
            p, q = z[at - 1].log_softmax(-1), w[at - 1].log_softmax(-1)
            delta = w[at - 1] - z[at - 1]
            expected.setdefault((item, at), []).append(
                (
                    float((p.exp() * (p - q)).sum()),
                    float((q.exp() * (q - p)).sum()),
                    float((p.exp() - q.exp()).abs().sum()) / 2,
                    -float((p.exp() * p).sum()),
                    -float((q.exp() * q).sum()),
                    int(p.argmax()),
                    int(q.argmax()),
                    len(set(p.topk(5).indices.tolist()) & set(q.topk(5).indices.tolist())),
                    float(delta.abs().max()),
                    float(delta.max() - delta.min()) / 2,
                )
            )
    names = run.positions.columns[4:]
    found = {
        key: sorted(rows[names].itertuples(index=False, name=None))
        for key, rows in run.positions.groupby(["doc_id", "position"])
    }
    assert sorted(found) == sorted(expected)
    for key, rows in expected.items():
        np.testing.assert_allclose(found[key], sorted(rows), rtol=1e-4, atol=1e-5)
    assert set(run.positions["task"]) == {run.task}
    assert set(run.positions["cluster"]) == set(run.frame["cluster"])


def test_a_model_against_itself_diverges_nowhere(tiny: Tiny) -> None:
    """Exactly."""
    from evalharness.pair.tasks.run import run_tasks

    loaded = side(tiny, 0)
    (run,) = run_tasks(loaded, loaded, prepare("choose.yaml"), batch_size=2)
    rows = run.positions
    assert len(rows) > 0
    assert (rows[["kl", "kl_reverse", "total_variation", "half_range"]] == 0).all(axis=None)
    assert (rows["top5_overlap"] == 5).all()


def test_swapping_the_sides_swaps_the_divergence(tiny: Tiny) -> None:
    """Forward and reverse KL change places; the half-range stays."""
    from evalharness.pair.tasks.run import run_tasks

    a, b = side(tiny, 0), side(tiny, 1)
    (one,) = run_tasks(a, b, prepare("choose.yaml"), batch_size=2)
    (two,) = run_tasks(b, a, prepare("choose.yaml"), batch_size=2)
    np.testing.assert_allclose(one.positions["kl"], two.positions["kl_reverse"], rtol=1e-5)
    np.testing.assert_array_equal(one.positions["half_range"], two.positions["half_range"])


def test_a_masked_logit_is_scored_as_torch_does_and_its_divergence_is_unknown(tiny: Tiny) -> None:
    """−inf at a token that no continuation holds: finite scores, NaN statistics."""
    import torch

    from evalharness.pair.tasks.packed_pass import PackedSide, PairedPass

    pair = side(tiny, 0), side(tiny, 1)
    requests = [((5, 6, 7), (8, 9)), ((5, 6, 7), (8, 10, 11))]
    passes = PairedPass([PackedSide(s) for s in pair], batch_size=2, max_length=64)
    before = passes.answers(0, requests)
    passes.forget()
    handle = passes.sides[0].side.head.register_forward_hook(
        lambda module, args, out: out.index_fill(-1, torch.tensor([99]), -math.inf)
    )
    after = passes.answers(0, requests)
    handle.remove()
    for (context, continuation), (log_p, _), (old, _) in zip(requests, after, before, strict=True):
        z = pair[0].model(torch.tensor([[*context, *continuation]])).logits[0].detach().clone()
        z[:, 99] = -math.inf
        z = z[len(context) - 1 : -1].log_softmax(-1)
        assert log_p == pytest.approx(float(z.gather(1, torch.tensor(continuation)[:, None]).sum()))
        assert log_p > old
    found = passes.positions([(0, r) for r in requests])
    assert found["position"].tolist() == [3, 4, 5]
    assert np.isnan(found["kl"]).all()
    assert np.isnan(found["half_range"]).all()


def test_sides_with_different_vocabularies_are_scored_apart(tiny: Tiny) -> None:
    """The reference never sees the candidate's ids; scores are still lm-eval's."""
    reference, candidate = side(tiny, 0), architecture("qwen2", 1, vocab_size=400)
    candidate.tokenizer.add_tokens(["fox", "river"])
    plain, packed = both_ways(reference, candidate, "choose.yaml")
    assert_same(plain, packed)
    assert packed[0][0].positions.empty


def test_out_of_memory_is_no_reason_not_to_pack(tiny: Tiny) -> None:
    """It goes on to whoever halves the batch."""
    from evalharness.pair.tasks.packed_pass import PackedSide
    from evalharness.pair.tasks.packing_trial import probe

    loaded = side(tiny, 0)
    packed = PackedSide(loaded)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    loaded.model.model.forward = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        probe(packed)


def test_progress_ends_at_the_total(tiny: Tiny) -> None:
    """A pass over both sides may run ahead of the first, never beyond the end."""
    from evalharness.pair.tasks.run import run_tasks

    pair = side(tiny, 0), side(tiny, 1)
    prepared = prepare("choose.yaml", "read.yaml", "finish.yaml")
    counts: list[int] = []
    list(
        run_tasks(
            *pair,
            prepared,
            batch_size=2,
            progress=lambda done, total, label: counts.append(done),
        )
    )
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 2 * prepared.requests)
