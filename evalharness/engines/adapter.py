"""PEFT adapters.

A dense model gets the adapter merged into its weights (``merge_and_unload``), in the weights' own
dtype: modules keep their names and types, so that layers match the reference's by name, and what
is measured is the merged model, rounding included. Onto a quantised model it is added unmerged, as
it is served (QLoRA): merging would quantise again. There too each adapted module keeps its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from evalharness.compat import peft
from evalharness.compat.transformers import is_quantized
from evalharness.engines.adapter_base import check_base
from evalharness.engines.hub import Resolved
from evalharness.engines.locate import resolve_adapter
from evalharness.engines.shared_weights import give_own_weights, note_untied
from evalharness.errors import InputError
from evalharness.spec.model import ModelSpec


def add_adapter(
    model: PreTrainedModel, spec: ModelSpec, base: Resolved, messages: list[str]
) -> PreTrainedModel:
    """Add ``spec.adapter`` to ``model``; says in ``messages`` whether it was merged.

    Raises
    ------
    InputError : peft is missing, or the adapter does not fit the model.

    """
    assert spec.adapter is not None
    try:
        from peft import PeftConfig, PeftModel
    except ImportError:
        raise InputError(
            "peft is not installed", key="adapter", remedy="Run: pip install 'evalharness[peft]'"
        ) from None
    pickle = spec.model.allow_pickle
    found = resolve_adapter(spec.adapter, allow_pickle=pickle)
    place = found.path or _fetch(str(found.hub_id), pickle)
    if note := check_base(place, spec, base):
        messages.append(note)
    quantised = is_quantized(model)
    safe: dict[str, Any] = {} if pickle else {"use_safetensors": True}
    try:
        config = PeftConfig.from_pretrained(str(place))
        config.inference_mode = True
        if quantised:
            missing = peft.add_unmerged(model, place, config)
            merged = model
        else:
            wrapped = PeftModel.from_pretrained(model, str(place), config=config, **safe)
            missing = peft.weights_not_in_files(wrapped, place, safe=not pickle)
            give_own_weights(wrapped, peft.written_by_merging(wrapped), each=True)
            merged = wrapped.merge_and_unload(safe_merge=True)
            note_untied(merged)
    except InputError:
        raise
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the adapter in {place} does not fit {type(model).__name__} ({text})",
            key="adapter",
            remedy="Give the adapter that was trained on this model.",
        ) from error
    if missing:
        raise InputError(
            f"the adapter in {place} lacks {len(missing)} of its weights: {', '.join(missing[:3])}",
            key="adapter",
        )
    how = "added unmerged" if quantised else "merged into the weights"
    kind = getattr(config.peft_type, "value", config.peft_type)
    messages.append(f"{spec.name}: {kind} adapter {how} ({place})")
    result: PreTrainedModel = merged
    return result


def _fetch(hub_id: str, pickle: bool) -> Path:
    from huggingface_hub import snapshot_download

    weights = ["adapter_model.safetensors"] + (["adapter_model.bin"] if pickle else [])
    place = Path(snapshot_download(hub_id, allow_patterns=["adapter_config.json", *weights]))
    resolve_adapter(str(place), allow_pickle=pickle)
    return place
