"""What breaks when torch moves: the names that its wrappers put before a module's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evalharness.compat.torch import without_wrappers


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


def names(module: nn.Module) -> set[str]:
    return {without_wrappers(name) for name, m in module.named_modules() if type(m) is nn.Linear}


def test_a_compiled_model_has_its_names() -> None:
    assert names(torch.compile(Inner())) == {"layer"}


def test_a_checkpointed_layer_has_its_name() -> None:
    from torch.distributed.algorithms._checkpoint import checkpoint_wrapper as wrapping

    model = nn.Sequential(wrapping.checkpoint_wrapper(Inner()))
    assert names(model) == {"0.layer"}


def test_a_data_parallel_model_has_its_names() -> None:
    assert names(nn.DataParallel(Inner())) == {"layer"}


def test_fsdp_still_says_its_word() -> None:
    """Its models are made in a group of processes only."""
    common = pytest.importorskip("torch.distributed.fsdp._common_utils")
    assert without_wrappers(f"{common.FSDP_WRAPPED_MODULE}.layer") == "layer"


def test_a_name_that_only_looks_like_one_stays() -> None:
    assert without_wrappers("my_module.layer") == "my_module.layer"
