"""Packed scores against one plain forward pass a request, on the CPU and on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from evalharness.models.load import LoadedModel
from evalharness.pair.prefix import PackedSide, PairedPass

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
)
VOCABULARY = 300


def side(seed: int, device: str, dtype: torch.dtype) -> PackedSide:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(device, dtype).eval()
    nothing: Any = None
    return PackedSide(LoadedModel(f"random {seed}", model, nothing, torch.device(device), nothing))


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
