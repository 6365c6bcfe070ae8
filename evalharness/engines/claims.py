"""What is claimed of a model, and where the tensors say otherwise.

Claims are those of the model file (``manifest:``), of a checkpoint's ``config.json`` and of a GGUF
file's metadata. What they say of the tool and its calibration data can only be quoted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalharness.engines.file_headers import GgufTensor
from evalharness.engines.locate import read_json
from evalharness.engines.tensor_storage import StoredTensor
from evalharness.engines.treatment import NOT_QUANTISED, Treatment, compressed_share, sparsity
from evalharness.errors import short
from evalharness.spec.model import Claims

_TOLERANCE = 0.05  # bits
_LEAST_SHARE = 0.5  # of the linear and expert weights, below which a claim of bits is doubtful
_ZEROS = 0.02  # share of zeros that a claim may be off by
_KERNELS = ("low-bit", "dequantised", "simulated")
_TOOL = ("tool", "quantizer", "provider", "version", "autoround_version", "dataset", "calibration")


def disagreements(
    claim: Claims, tensors: list[StoredTensor], file: Sequence[GgufTensor] = ()
) -> list[str]:
    """Where the claimed bits and group size are not what was measured, in words.

    A claim of bits may mean the codes alone or the scales too: 4 and 4.5 both fit int4 in groups
    of 32. ``file`` is the table of a GGUF file, whose types count where the model was left dense.
    """
    quantised = [t for t in tensors if t.code_bits is not None]
    exact = [t for t in quantised if not t.on_grid]
    packed = [] if exact else [t for t in file if _packed_bits(t) is not None]
    kinds = ", ".join(dict.fromkeys([*(t.kind for t in quantised), *(t.type_name for t in packed)]))
    found = []
    ranges = [_range(t) for t in quantised] + [r for t in packed if (r := _packed_bits(t))]
    if claim.bits is not None:
        if not ranges:
            dtypes = ", ".join(dict.fromkeys(t.kind for t in tensors))
            found.append(
                f"claims {claim.bits:g} bits, but no tensor is compressed (all are {dtypes})"
            )
        elif not any(low - _TOLERANCE <= claim.bits <= high + _TOLERANCE for low, high in ranges):
            found.append(f"claims {claim.bits:g} bits, but the weights are {kinds}")
    share = compressed_share(tensors) if not packed else packed_share(file)
    if claim.bits is not None and ranges and share is not None and share < _LEAST_SHARE:
        found.append(
            f"claims {claim.bits:g} bits, but {share:.1%} of the linear and expert weights are "
            "compressed"
        )
    if claim.group_size and exact and claim.group_size not in {t.group_size for t in exact}:
        found.append(f"claims groups of {claim.group_size}, but the weights are {kinds}")
    return found + _against_sparsity(claim, tensors)


def _against_sparsity(claim: Claims, tensors: list[StoredTensor]) -> list[str]:
    """Where the claimed share of zeros, or the pattern, is not what was counted."""
    zeros, pattern = sparsity(tensors)
    if claim.sparsity is None or zeros is None or pattern is None:
        return []
    where = "of the linear and expert weights are"
    if isinstance(claim.sparsity, str):
        said, ok = str(claim.sparsity), pattern >= _LEAST_SHARE
        got = f"{pattern:.1%} {where} in such a pattern"
    else:
        said, ok = f"{claim.sparsity:.0%}", abs(zeros - claim.sparsity) <= _ZEROS
        got = f"{zeros:.1%} {where} zero"
    return [] if ok else [f"claims {said} sparsity, but {got}"]


def checkpoint(place: Path | None) -> dict[str, Any]:
    """``quantization_config`` of the ``config.json`` at ``place``; empty: there is none."""
    if place is None or not (place / "config.json").is_file():
        return {}
    found = read_json(place / "config.json", "model.path").get("quantization_config")
    return found if isinstance(found, dict) else {}


def quoted(config: Mapping[str, Any]) -> str:
    """What a checkpoint says of its own compression, in one line."""
    scheme = {**config, **_weights(config)}
    parts = [str(config.get("quant_method") or config.get("method") or "of no method")]
    if config.get("format"):
        parts.append(short(config["format"]))
    names = {"bits": _BITS, "group size": _GROUP}
    parts += [f"{n} {v:g}" for n, keys in names.items() if (v := _number(scheme, keys))]
    meta = config.get("meta")
    said = {**(meta if isinstance(meta, dict) else {}), **config}
    parts += [f"{k.replace('_', ' ')} {short(said[k])}" for k in _TOOL if said.get(k)]
    return ", ".join(parts)


def against_checkpoint(
    config: Mapping[str, Any], tensors: Sequence[StoredTensor], found: Treatment
) -> list[str]:
    """Where ``config.json`` says other bits, groups or treatments than the tensors show."""
    if not config:
        return []
    scheme, wrong = _weights(config), []
    codes = [t for t in tensors if t.code_bits is not None and not t.on_grid]
    kinds = ", ".join(dict.fromkeys(t.kind for t in codes))
    bits, group = _number(scheme, _BITS), _number(scheme, _GROUP)
    if bits and codes and not any(_near(bits, t) for t in codes):
        wrong.append(f"config.json says {bits:g} bits, but the weights are {kinds}")
    if group and codes and group not in {t.group_size for t in codes}:
        wrong.append(f"config.json says groups of {group:g}, but the weights are {kinds}")
    if config.get("kv_cache_scheme") and found.kv_cache == NOT_QUANTISED:
        wrong.append("config.json names a kv_cache_scheme, and keys and values are not quantised")
    stated = scheme.get("input_activations")
    if stated and found.activations == NOT_QUANTISED:
        wrong.append("config.json names input_activations, and activations are not quantised")
    return wrong


def against_kernel(claim: Claims, found: Treatment) -> list[str]:
    """Where ``manifest.kernel`` names another class of kernel than runs here."""
    said = next((k for k in _KERNELS if claim.kernel and k in claim.kernel.lower()), None)
    if said is None or found.kernel.startswith(said) or found.kernel == "not known":
        return []
    return [f"claims the kernel {short(claim.kernel)}, but here the weights run {found.kernel}"]


def packed_share(file: Iterable[GgufTensor]) -> float | None:
    """Share of a GGUF file's linear and expert weights that are quantised; None: it has none."""
    linear = [t for t in file if t.name.startswith("blk.") and len(t.shape) > 1]
    every = sum(math.prod(t.shape) for t in linear)
    held = sum(math.prod(t.shape) for t in linear if _packed_bits(t) is not None)
    return held / every if every else None


_BITS = ("num_bits", "bits", "w_bit", "weight_bits")
_GROUP = ("group_size", "q_group_size")


def _weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """The one scheme of a checkpoint's weights, and of its inputs; empty: it has several."""
    groups = config.get("config_groups")
    if not isinstance(groups, dict):
        return dict(config)
    schemes = [g for g in groups.values() if isinstance(g, dict)]
    if len(schemes) != 1 or not isinstance(schemes[0].get("weights"), dict):
        return {}
    return {**schemes[0]["weights"], "input_activations": schemes[0].get("input_activations")}


def _number(scheme: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    found = (scheme.get(k) for k in keys)
    return next((v for v in found if isinstance(v, int | float) and v > 0), None)


def _near(bits: float, tensor: StoredTensor) -> bool:
    low, high = _range(tensor)
    return low - _TOLERANCE <= bits <= high + _TOLERANCE


def file_types(tensors: Sequence[GgufTensor]) -> str:
    """How a GGUF file stores its tensors: ``211 Q4_1, 61 F32; 5.01 bits per weight``."""
    counts = Counter(t.type_name for t in tensors).most_common()
    text = "GGUF: " + ", ".join(f"{count} {name}" for name, count in counts)
    sizes = [t.bytes for t in tensors]
    weights = sum(math.prod(t.shape) for t in tensors)
    if not weights or None in sizes:
        return text
    return f"{text}; {8 * sum(s for s in sizes if s) / weights:.2f} bits per weight"


def _range(tensor: StoredTensor) -> tuple[float, float]:
    """Bits of the codes, and those with scales and zero points (of a grid: not known, up to 1)."""
    codes = tensor.code_bits or 0.0
    whole = codes + 1 if tensor.on_grid else tensor.bits / tensor.parameters
    return min(codes, whole), max(codes, whole)


def _packed_bits(tensor: GgufTensor) -> tuple[float, float] | None:
    """Return the same of a quantised GGUF type: 4 and 5 for Q4_1; None for a float type."""
    digits = "".join(c for c in tensor.type_name.partition("_")[0] if c.isdigit())
    if tensor.bytes is None or tensor.type_name in ("F32", "F16", "BF16"):
        return None
    return float(digits), 8 * tensor.bytes / max(1, math.prod(tensor.shape))
