"""Packed scores against one plain forward pass a request, on the CPU and on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from evalharness.engines.base import LoadedModel
from evalharness.pair.tasks.kept_prompts import KeptPrompts
from evalharness.pair.tasks.packed_pass import PackedSide, PairedPass

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
)
VOCABULARY = 300


def side(seed: int, device: str, dtype: torch.dtype) -> PackedSide:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config).to(device, dtype).eval()
    nothing: Any = None
    tokens: Any = range(VOCABULARY)  # only how many there are is asked
    return PackedSide(LoadedModel(f"random {seed}", model, tokens, torch.device(device), nothing))


def requests() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Contexts that share a long beginning, some that do not, four continuations each."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(int(i) for i in rng.integers(0, VOCABULARY, count))

    shared = draw(60)
    contexts = [shared + draw(int(rng.integers(3, 20))) for _ in range(6)]
    contexts += [draw(int(rng.integers(3, 40))) for _ in range(4)]
    return [(c, draw(int(rng.integers(1, 8)))) for c in contexts for _ in range(4)]


@torch.inference_mode()
def plainly(one: PackedSide, context: tuple[int, ...], continuation: tuple[int, ...]) -> Any:
    fed = torch.tensor([*context, *continuation], device=one.device)[None, :-1]
    logits = one.side.model(input_ids=fed).logits[0, len(context) - 1 :].double()
    target = torch.tensor(continuation, device=one.device)
    log_p = logits.log_softmax(-1).gather(1, target[:, None])
    return float(log_p.sum()), bool((logits.argmax(-1) == target).all())


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_packed_scores_equal_a_plain_forward_pass_a_request(device: str) -> None:
    """Both sides at once, in float32: log-likelihoods to 1e-3 nats, the same most likely tokens."""
    sides = [side(seed, device, torch.float32) for seed in (0, 1)]
    paired = PairedPass(sides, batch_size=4, max_length=512)
    keys = requests()
    for number, one in enumerate(sides):
        for key, got in zip(keys, paired.answers(number, keys), strict=True):
            expected = plainly(one, *key)
            assert got[0] == pytest.approx(expected[0], abs=1e-3)
            assert got[1] == expected[1]
    rows = paired.positions(list(enumerate(keys)))
    assert len(rows["kl"]) == sum(len(c) for _, c in keys)
    assert (rows["kl"] > 0).all()


def test_the_references_prompts_are_fed_once_for_all_candidates() -> None:
    """The second candidate's answers and statistics are those of a pass of its own, to the bit."""
    reference = side(0, "cpu", torch.float32)
    kept = KeptPrompts(1 << 30)
    keys = requests()
    asked = list(enumerate(keys))
    PairedPass(
        [reference, side(1, "cpu", torch.float32)], batch_size=4, max_length=512, kept=kept
    ).answers(0, keys)
    assert kept

    second = side(2, "cpu", torch.float32)
    alone = PairedPass([reference, second], batch_size=4, max_length=512)
    expected = [alone.answers(number, keys) for number in (0, 1)]

    calls: list[Any] = []
    handle = reference.side.backbone.register_forward_pre_hook(lambda *a: calls.append(a))
    shared = PairedPass([reference, second], batch_size=4, max_length=512, kept=kept)
    assert [shared.answers(number, keys) for number in (0, 1)] == expected
    handle.remove()
    assert not calls
    found, wanted = shared.positions(asked), alone.positions(asked)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)

    # Another batch size makes other batches, which are fed anew.
    before = len(kept)
    other = PairedPass([reference, second], batch_size=3, max_length=512, kept=kept)
    other.answers(0, keys)
    assert len(kept) > before
