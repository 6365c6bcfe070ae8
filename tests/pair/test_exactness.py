"""What a model is measured to say is what it says of a row alone, whatever lies beside it."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.exactness import ARCHITECTURES, LOCAL, ORIGINAL, Found, measure, model, tokenizer
from evalharness.compat.silence import quiet
from evalharness.compat.transformers_kinds import possible_windows
from evalharness.pair.rows_alone import Rest, alone_because


def measured(name: str) -> Found:
    """One row of the benchmark's table."""
    with quiet():
        return measure(name)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_way_is_exact_or_not_taken(name: str) -> None:
    """Texts in batches, packed tasks and the noise floor against single rows in float64."""
    found = measured(name)
    assert found.exact, found
    assert found.packed == name.startswith(("full", "learned"))
    if not found.packed:
        assert found.notes


def loaded(name: str) -> Any:
    """A model of the table as a side is loaded."""
    return SimpleNamespace(
        name="m", model=model(name), tokenizer=tokenizer(), device=torch.device("cpu")
    )


def test_rows_within_the_original_length_are_batched() -> None:
    """Only what would change the frequencies is fed alone; asked in any order."""
    one = loaded("dynamic rotary (Qwen2)")
    for length in (ORIGINAL, 2 * ORIGINAL, ORIGINAL + 1, ORIGINAL - 1, ORIGINAL):
        why = alone_because(one, length)
        assert (why is not None) == (length > ORIGINAL)
        if why is not None:
            assert "model.rotary_emb.inv_freq" in why


def test_what_a_call_leaves_behind_is_put_back_in_a_copy_too() -> None:
    """The hook of a deep copy restores the copy, and does not touch the original."""
    one = loaded("dynamic rotary (Qwen2)")
    fresh = copy.deepcopy(one.model)
    assert alone_because(one, 2 * ORIGINAL) is not None
    other = copy.deepcopy(one.model)
    assert Rest.of(other) is not Rest.of(one.model)
    long, row = torch.arange(2 * ORIGINAL)[None], torch.arange(ORIGINAL + 2)[None]
    with torch.inference_mode():
        right = fresh(input_ids=row, use_cache=False).logits
        for each in (one.model, other):
            each(input_ids=long, use_cache=False)
            assert torch.equal(each(input_ids=row, use_cache=False).logits, right)


def test_a_scale_that_the_batch_shares_is_found() -> None:
    """Activations divided by the largest of the whole batch, as some quantised layers do."""
    one = loaded("full (Llama)")
    assert alone_because(one, 64) is None
    shared = loaded("full (Llama)")
    for layer in shared.model.model.layers:

        def rounded(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            scale = args[0].abs().max() / 7
            return ((args[0] / scale).round() * scale,)

        layer.mlp.down_proj.register_forward_pre_hook(rounded)
    why = alone_because(shared, 64)
    assert why is not None
    assert why.startswith("m computes a row from other rows or padding (by ")


def test_a_window_is_looked_for_under_any_key() -> None:
    """Sizes are not windows; whatever else is a number may be one."""
    assert LOCAL in possible_windows(model("local by another key (GPT-Neo)"))
    assert possible_windows(model("full (Llama)")) == []
