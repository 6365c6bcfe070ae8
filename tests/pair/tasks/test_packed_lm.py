"""Packed scores are those of lm-eval's HFLM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pair.tasks.both_ways import architecture, assert_same, both_ways
from tests.pair.tasks.lm_sides import side

Tiny = Callable[..., Path]


@pytest.mark.parametrize("name", ["choose.yaml", "finish.yaml", "read.yaml"])
def test_scores_are_those_of_lm_eval(tiny: Tiny, name: str) -> None:
    """Multiple choice, plain and rolling log-likelihoods of both sides, float32."""
    pair = side(tiny, 0), side(tiny, 1)
    plain, packed = both_ways(*pair, name)
    assert packed[0][0].notes == ()
    assert_same(plain, packed)


def test_few_shot_scores_on_a_shared_prefix_are_those_of_lm_eval(tiny: Tiny) -> None:
    """Five examples, items that are examples themselves among them."""
    pair = side(tiny, 0, max_position_embeddings=8192), side(tiny, 1, max_position_embeddings=8192)
    plain, packed = both_ways(*pair, "mmlu_dev_cloze", num_fewshot=5, limit=20, seed=3)
    assert_same(plain, packed)


def test_prompts_that_are_too_long_are_cut_as_lm_eval_cuts_them(tiny: Tiny) -> None:
    """Each choice then keeps a context of its own length."""
    pair = side(tiny, 0, max_position_embeddings=128), side(tiny, 1, max_position_embeddings=128)
    plain, packed = both_ways(*pair, "mmlu_dev_cloze", num_fewshot=1, limit=6, seed=1)
    assert_same(plain, packed)


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "phi", "gemma2"])
def test_other_architectures_are_packed_exactly(name: str) -> None:
    """Learned positions, biases, partial rotary, capped logits with a scaled embedding."""
    options = {"sliding_window": 4096} if name == "gemma2" else {}
    pair = architecture(name, 0, **options), architecture(name, 1, **options)
    plain, packed = both_ways(*pair, "choose.yaml", num_fewshot=1)
    assert packed[0][0].notes == ()
    assert_same(plain, packed)


def test_eager_attention_is_packed_exactly(tiny: Tiny) -> None:
    """It adds the mask to its scores, where sdpa takes one of booleans."""
    pair = side(tiny, 0), side(tiny, 1)
    for loaded in pair:
        loaded.model.set_attn_implementation("eager")
    plain, packed = both_ways(*pair, "choose.yaml", num_fewshot=1)
    assert packed[0][0].notes == ()
    assert_same(plain, packed)
