"""What transformers raises while loading, as one message that says what to do."""

from __future__ import annotations

import re
from pathlib import Path

from evalharness.engines.out_of_memory import is_out_of_memory
from evalharness.errors import EvalHarnessError, InputError, RunError
from evalharness.spec.model import ModelSpec


def explain(error: Exception, spec: ModelSpec, place: Path) -> EvalHarnessError:
    """Return what to raise instead of ``error``, which loading ``place`` for ``spec`` raised."""
    text = " ".join(str(error).split()) or type(error).__name__
    low = text.lower()
    if is_out_of_memory(error):
        return RunError(
            f"{spec.name}: not enough memory on {spec.model.device} for {place}. "
            "Use a machine with more, or model.dtype: bfloat16"
        )
    if "trust_remote_code" in low:
        return InputError(
            f"{place} ships Python code of its own, which is not run unless asked for",
            key="model.trust_remote_code",
            remedy="Read that code, then set model.trust_remote_code: true.",
        )
    if "does not recognize this architecture" in low or "unrecognized model" in low:
        return InputError(
            f"transformers does not know the architecture of {place} ({_short(text)})",
            key="model.path",
            remedy="Upgrade transformers, or set model.trust_remote_code: true if the model "
            "ships its code.",
        )
    if "unrecognized configuration class" in low:
        return InputError(
            f"{place} is not a causal language model ({_short(text)})", key="model.path"
        )
    if "gguf" in low and "not supported" in low:
        return InputError(
            f"transformers cannot load this GGUF file ({_short(text)})", key="model.path"
        )
    if "attn_implementation" in low or "flash_attention" in low or "flashattention" in low:
        return InputError(
            f"{spec.model.attn} attention cannot be used ({_short(text)})", key="model.attn"
        )
    if isinstance(error, ImportError):
        return InputError(f"loading {place} needs a library ({_short(text)})", key="model.path")
    if "automatic conversion of the weights" in low and spec.quantization:
        return InputError(
            f"{spec.quantization['method']} could not quantise {place} ({_conversion(error)})",
            key="quantization",
            remedy="Use another scheme or device, or install what it asks for.",
        )
    return InputError(f"{place} cannot be loaded ({_short(text)})", key="model.path")


def _conversion(error: Exception) -> str:
    """The first error of a quantiser; transformers logs it in a table, and raises without it."""
    trace = error.__traceback__
    while trace is not None:
        info = trace.tb_frame.f_locals.get("loading_info")
        for text in getattr(info, "conversion_errors", {}).values():
            found = re.findall(r"^(\w*(?:Error|Exception): .+)$", text, re.MULTILINE)
            if found:
                return _short(str(found[0]))
        trace = trace.tb_next
    return _short(str(error))


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
