"""Private and version-fragile parts of PEFT: what an adapted module is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def adapted(module: nn.Module) -> nn.Module | None:
    """The layer that an unmerged or merged adapter wraps; None for any other module."""
    from torch import nn

    base = getattr(module, "base_layer", None)
    return base if isinstance(base, nn.Module) else None


def written_by_merging(model: nn.Module) -> dict[str, nn.Module]:
    """The layers under adapters, by their names in ``model``: merging writes into their weights."""
    found = {f"{name}.base_layer": adapted(module) for name, module in model.named_modules()}
    return {n: m for n, m in found.items() if m is not None and hasattr(m, "weight")}


def with_adapters(module: Any, weight: Tensor) -> Tensor:
    """``weight`` (O, I) of an adapted layer, and in float32 what its unmerged adapters add to it.

    A merged layer's weight has them in it already.
    """
    if getattr(module, "merged", False):
        return weight
    dense = weight.float()
    for name in getattr(module, "active_adapters", ()):
        if name in getattr(module, "lora_A", ()):
            dense = dense + module.get_delta_weight(name).to(dense.device, dense.dtype)
    return dense


def add_unmerged(model: Any, place: Path, config: Any) -> list[str]:
    """Add the adapter at ``place`` to a model of transformers; returns the weights it lacks."""
    info = model.load_adapter(str(place), peft_config=config)
    return sorted(getattr(info, "missing_keys", ()) or ())


def weights_not_in_files(wrapped: Any, place: Path, *, safe: bool) -> list[str]:
    """Adapter weights that the model has and the files at ``place`` have not.

    ``PeftModel.from_pretrained`` leaves them as they were initialised and warns at most.
    """
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    options: dict[str, Any] = {"use_safetensors": True} if safe else {}
    held = load_peft_weights(str(place), **options)
    return sorted(set(get_peft_model_state_dict(wrapped)) - set(held))
