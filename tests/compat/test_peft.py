"""What breaks when PEFT moves: an adapted layer is measured with what its adapter adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evalharness.compat import peft as compat
from evalharness.compat.torch import without_wrappers
from tests.engines.conftest import tiny


@pytest.fixture(scope="module", autouse=True)
def peft() -> Any:
    """The library, imported no earlier: it takes a second."""
    return pytest.importorskip("peft")


def adapted() -> Any:
    """A tiny model with an adapter that changes something."""
    import peft

    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    return peft.get_peft_model(tiny(dtype=torch.float32), config)


def layer_of(model: Any) -> Any:
    return next(m for n, m in model.named_modules() if n.endswith("layers.0.self_attn.q_proj"))


def test_an_adapted_layer_is_its_base_and_what_the_adapter_adds() -> None:
    """Oracle: what the layer makes of the unit vectors; a merged one is its own weight."""
    layer = layer_of(adapted())
    base = compat.adapted(layer)
    assert base is not None
    assert compat.adapted(base) is None
    effect = layer(torch.eye(64)).T
    torch.testing.assert_close(compat.with_adapters(layer, base.weight.data), effect)
    layer.merge()
    torch.testing.assert_close(compat.with_adapters(layer, base.weight.data), effect)


def test_weights_that_the_files_lack_are_named(tmp_path: Path, peft: Any) -> None:
    """``from_pretrained`` leaves them random, with a warning."""
    from safetensors.torch import load_file, save_file

    adapted().save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    state = load_file(file)
    gone = sorted(state)[0]
    del state[gone]
    save_file(state, file)
    with pytest.warns(UserWarning, match="missing adapter keys"):
        wrapped = peft.PeftModel.from_pretrained(tiny(dtype=torch.float32), str(tmp_path))
    assert compat.weights_not_in_files(wrapped, tmp_path, safe=True) == [gone]
    config = peft.PeftConfig.from_pretrained(str(tmp_path))
    assert compat.add_unmerged(tiny(dtype=torch.float32), tmp_path, config) != []


def test_wrapped_modules_keep_their_names_below_the_wrapper() -> None:
    """Matching takes off what PEFT puts in front."""
    names = [without_wrappers(n) for n, m in adapted().named_modules() if isinstance(m, nn.Linear)]
    assert "model.layers.1.mlp.down_proj" in names
