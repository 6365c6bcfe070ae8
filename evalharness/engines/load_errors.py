"""What a failed load raises, as one message that says what to do."""

from __future__ import annotations

from pathlib import Path

from evalharness.compat.transformers import conversion_error, why_not_loaded
from evalharness.engines.out_of_memory import is_out_of_memory
from evalharness.errors import EvalHarnessError, InputError, RunError
from evalharness.spec.model import ModelSpec


def explain(error: Exception, spec: ModelSpec, place: Path) -> EvalHarnessError:
    """Return what to raise instead of ``error``, which loading ``place`` for ``spec`` raised."""
    if is_out_of_memory(error):
        return RunError(
            f"{spec.name}: not enough memory on {spec.model.device} for {place}. "
            "Use a machine with more, or model.dtype: bfloat16"
        )
    text = _short(" ".join(str(error).split()) or type(error).__name__)
    key, remedy = "model.path", None
    match why_not_loaded(error):
        case "code":
            message = f"{place} ships Python code of its own, which is not run unless asked for"
            key = "model.trust_remote_code"
            remedy = "Read that code, then set model.trust_remote_code: true."
        case "architecture":
            message = f"transformers does not know the architecture of {place} ({text})"
            remedy = (
                "Upgrade transformers, or set model.trust_remote_code: true if the model "
                "ships its code."
            )
        case "task":
            message = f"{place} is not a causal language model ({text})"
        case "gguf":
            message = f"transformers cannot load this GGUF file ({text})"
        case "attention":
            message, key = f"{spec.model.attn} attention cannot be used ({text})", "model.attn"
        case "library":
            message = f"loading {place} needs a library ({text})"
        case "conversion" if spec.quantization:
            method, why = spec.quantization["method"], conversion_error(error) or str(error)
            message, key = f"{method} could not quantise {place} ({_short(why)})", "quantization"
            remedy = "Use another scheme or device, or install what it asks for."
        case _:
            message = f"{place} cannot be loaded ({text})"
    return InputError(message, key=key, remedy=remedy)


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
