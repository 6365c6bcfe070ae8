"""A set of modules to keep in high precision, as the files of the tools that would keep them.

`repair_spec` is a candidate.yaml of this tool; the rest is what goes into a quantiser's own recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalharness.run.assets import schema_line
from evalharness.spec.model import ModelSpec


def repair_spec(
    spec: ModelSpec, names: Sequence[str], head: str | None, *, every: bool = False
) -> tuple[ModelSpec | None, str]:
    """The candidate's model file with ``names`` kept; or None, and why no file can say it.

    Parameters
    ----------
    spec : the candidate's.
    names : of the modules to keep.
    head : the head's name, which quantisers of transformers leave alone only while they are given
        no list of their own.
    every : these are all modules that differ from the reference's.

    """
    name = f"{spec.name}-repaired"
    if not names:
        return spec, ""
    if spec.simulate is not None:
        if every:
            return None, "all that was quantised is to be kept: what is left is the reference"
        parts = {}
        for key in spec.simulate.parts:
            part = getattr(spec.simulate, key)
            kept = (*part.exclude, *(n for n in names if n not in part.exclude))
            parts[key] = part.model_copy(update={"exclude": kept})
        simulate = spec.simulate.model_copy(update=parts)
        return spec.model_copy(update={"name": name, "simulate": simulate}), ""
    if spec.quantization is not None:
        bnb = spec.quantization["method"] == "bitsandbytes"
        key = "llm_int8_skip_modules" if bnb else "modules_to_not_convert"
        before = spec.quantization.get(key) or ([head] if head else [])
        kept_names = [*before, *(n for n in names if n not in before)]
        quantization = {**spec.quantization, key: kept_names}
        return spec.model_copy(update={"name": name, "quantization": quantization}), ""
    return None, (
        "the candidate was compressed before it was loaded, so no model file can undo it: compress "
        "it again with one of the keep-lists"
    )


def spec_text(spec: ModelSpec, comments: Sequence[str]) -> str:
    """The model file, with what it is and where it comes from above it."""
    import yaml

    data: dict[str, Any] = spec.model_dump(mode="json", exclude_defaults=True)
    data = {"version": 1, "name": spec.name, **{k: v for k, v in data.items() if k != "name"}}
    head = "".join(f"{line}\n" for line in (schema_line("spec"), *(f"# {c}" for c in comments)))
    return head + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def keep_lists(names: Sequence[str]) -> dict[str, Any]:
    """``names`` in the syntax of each tool.

    transformers' ``modules_to_not_convert``; llm-compressor's ``ignore``; torchao's
    ``filter_fn`` of ``quantize_``, and ``FqnToConfig``; AutoRound's ``layer_config``.
    """
    listed = list(names)
    kept = "{" + ", ".join(repr(n) for n in listed) + "}" if listed else "set()"
    return {
        "transformers": {"modules_to_not_convert": listed},
        "llm-compressor": {"ignore": listed},
        "torchao": {
            "filter_fn": "lambda module, fqn: isinstance(module, torch.nn.Linear) "
            f"and fqn not in {kept}",
            "FqnToConfig": dict.fromkeys(listed),
        },
        "auto-round": {"layer_config": {n: {"bits": 16} for n in listed}},
    }
