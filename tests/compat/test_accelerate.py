"""What breaks when accelerate moves: two models that do not fit on a device together."""

from __future__ import annotations

import torch

from evalharness.compat.accelerate import copy_block_by_block
from tests.engines.conftest import tiny


@torch.inference_mode()
def test_weights_are_away_between_calls_and_the_numbers_stay() -> None:
    """What reads a weight is told so by the meta device."""
    model, ids = tiny(dtype=torch.float32), torch.arange(5)[None]
    expected = model(input_ids=ids).logits
    copy_block_by_block(model, torch.device("cpu"))
    assert all(p.is_meta for p in model.parameters())
    assert torch.equal(model(input_ids=ids).logits, expected)
    assert all(p.is_meta for p in model.parameters())
