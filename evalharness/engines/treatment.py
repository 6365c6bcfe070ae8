"""How a loaded model computes: the format of its weights, activations, keys and values, kernel.

dense                  the weights are not compressed
low-bit                codes are multiplied: activations are quantised as well
dequantised on the fly codes stay packed, and are unpacked in every call
dequantised on loading, on the first forward pass, simulated
                       computed in float: what low bits do to the weights shows, what a kernel
                       of the deployment does, and its speed, does not
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from evalharness.compat import quantizers
from evalharness.engines.tensor_storage import StoredTensor, is_linear
from evalharness.spec.result import Kernel

NOT_QUANTISED = "not quantised"
_MOST = 3  # kinds that are named


@dataclass(frozen=True)
class Treatment:
    """In words; see `spec.result.CompressionManifest`."""

    format: str
    activations: str
    kv_cache: str
    kernel: Kernel


def treatment(
    model: nn.Module,
    tensors: Sequence[StoredTensor],
    *,
    simulated: bool,
    unpacked: bool,
) -> Treatment:
    """How ``model`` computes.

    Parameters
    ----------
    tensors : what `stored_tensors` found in it.
    simulated : its values were changed by `recipe.simulate`.
    unpacked : its files hold codes, which were made dense on loading.

    """
    linear = [t for t in tensors if t.linear]
    kinds: Counter[str] = Counter()
    for tensor in linear:
        kinds[tensor.kind] += tensor.parameters
    activations = _said(_activations(m) for n, m in model.named_modules() if n and is_linear(n, m))
    return Treatment(
        _some([kind for kind, _ in kinds.most_common()]),
        activations,
        _said(_kv_cache(model)),
        _kernel(linear, activations, simulated=simulated, unpacked=unpacked),
    )


def compressed_share(tensors: Iterable[StoredTensor]) -> float | None:
    """Share of the linear and expert weights that are quantised; None: there are none."""
    linear = [t for t in tensors if t.linear]
    every = sum(t.parameters for t in linear)
    if not every or any(t.unknown for t in linear):
        return None
    return sum(t.parameters for t in linear if t.code_bits is not None) / every


def sparsity(tensors: Iterable[StoredTensor]) -> tuple[float | None, float | None]:
    """Share of exact zeros in the linear and expert weights, and of weights in a 2:4 pattern.

    The zeros of a quantised weight are among them; None: there are none, or some are packed.
    """
    linear = [t for t in tensors if t.linear]
    every = sum(t.parameters for t in linear)
    if not every or any(t.zeros is None for t in linear):
        return None, None
    zeros, in_pattern = sum(t.zeros or 0 for t in linear), sum(t.in_pattern for t in linear)
    return zeros / every, in_pattern / every


def _kernel(
    linear: Sequence[StoredTensor], activations: str, *, simulated: bool, unpacked: bool
) -> Kernel:
    if simulated:
        return "simulated"
    if any(t.unknown for t in linear):
        return "not known"
    if any(t.resident is not None and t.resident_bits > t.held_bits for t in linear):
        return "dequantised on the first forward pass"
    if any(t.code_bits is not None and not t.on_grid for t in linear):
        low = activations != NOT_QUANTISED
        return "low-bit" if low else "dequantised on the fly"
    return "dequantised on loading" if unpacked else "dense"


def _activations(module: nn.Module) -> str:
    """How the inputs of a linear module are treated."""
    if quantizers.compressed_weights(module) is not None:
        return _words(quantizers.compressed_inputs(module))
    weight: Any = getattr(module, "weight", None)
    if weight is not None and quantizers.is_int8(module, weight):
        return "int8 per token, dynamic; outlying columns in 16 bits"
    scheme = getattr(module, "activation_scheme", None)
    if isinstance(scheme, str):
        return f"float8, {scheme}"
    return quantizers.torchao_inputs(getattr(weight, "data", weight)) or NOT_QUANTISED


def _kv_cache(model: nn.Module) -> list[str]:
    """How keys and values are treated, for each attention that says so."""
    return [
        _words(quantizers.compressed_inputs(m))
        for _, m in model.named_modules()
        if hasattr(m, "quantization_scheme")
        and quantizers.compressed_weights(m) is None
        and quantizers.compressed_inputs(m) is not None
    ]


def _words(found: quantizers.Arguments | None) -> str:
    if found is None:
        return NOT_QUANTISED
    kind = f"{'float' if found.type == 'float' else 'int'}{found.bits}"
    span = f"group {found.group_size}" if found.group_size else f"per {found.strategy}"
    span = span.replace("per tensor_group", "per group")
    return f"{kind} {span}, {'dynamic' if found.dynamic else 'static'}"


def _said(found: Iterable[str]) -> str:
    """What was found, the most frequent first; with counts where it is not the same throughout."""
    counts = Counter(found).most_common()
    if len(counts) < 2:
        return counts[0][0] if counts else NOT_QUANTISED
    return _some([f"{what} ({count} modules)" for what, count in counts])


def _some(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - _MOST} more" if len(parts) > _MOST else ""
    return "; ".join(parts[:_MOST]) + more
