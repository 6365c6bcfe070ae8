"""Magnitude pruning, in place: what would this model be with its smallest weights left out?

    share    the round(share · O · I) weights of least |w| of each matrix (O, I) become 0.
             Han et al., "Learning both Weights and Connections" (arXiv 1506.02626), matrix by
             matrix as the baseline of SparseGPT (arXiv 2301.00774)
    2:4      of every four consecutive input columns of a row the two of least |w| become 0.
             Mishra et al., "Accelerating Sparse Deep Neural Networks" (arXiv 2104.08378)

Of equal weights the first go. What is left of a row at its end by 2:4, fewer than four columns,
stays. 2:4 counts as stored: half of the weights, and 2 bits for the place of each that is kept,
which is one bit a weight. Zeros without a pattern count in full, since hardware stores them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evalharness.engines.shared_weights import give_own_weights
from evalharness.engines.simulate import Quantized, is_plain_linear, matrices, select, weight_of
from evalharness.spec.simulate import Pruning

_RUN, _DROPPED = 4, 2


@dataclass(frozen=True)
class Pruned:
    """A 2:4 sparse weight, whose values are quantised or not."""

    weights: int
    kept: int
    dtype: str
    width: int  # bits of the dtype
    quantized: Quantized | None = None

    @property
    def bits(self) -> int | None:
        """Bits of a kept value's code; None: it is not quantised."""
        return self.quantized.bits if self.quantized else None

    @property
    def group_size(self) -> int | None:
        """Columns that share a scale."""
        return self.quantized.group_size if self.quantized else None

    @property
    def total_bits(self) -> int:
        """Bits of the values that are kept, of their places and of the scales."""
        overhead = self.quantized.overhead_bits if self.quantized else 0
        return self.kept * ((self.bits or self.width) + _DROPPED) + overhead

    def __str__(self) -> str:
        what = str(self.quantized).removesuffix(" (simulated)") if self.quantized else self.dtype
        return f"{what}, 2:4 sparse (simulated)"


@torch.no_grad()
def prune(model: nn.Module, recipe: Pruning) -> dict[str, Pruned]:
    """Prune the linear weights of ``model`` in place.

    Returns
    -------
    dict : module name, or that of the parameter of fused experts → what was done; empty for zeros
        without a pattern, which are counted as they are found.

    Raises
    ------
    InputError : see `evalharness.engines.simulate.fake_quantize`.

    """
    chosen = select(model, recipe, "simulate.pruning")
    linear = {n: m for n, m in chosen.items() if is_plain_linear(m)}
    give_own_weights(model, linear, each=False)
    seen: set[int] = set()
    done = {}
    for name, module in chosen.items():
        weight = weight_of(name, module)
        found = matrices(name, module)
        for matrix in found if id(weight) not in seen else ():
            gone = two_of_four(matrix) if recipe.share is None else smallest(matrix, recipe.share)
            matrix.masked_fill_(gone, 0)
        seen.add(id(weight))
        if recipe.pattern is not None:
            rest = sum(len(m) * (m.shape[1] % _RUN) for m in found)
            done[name] = Pruned(
                weight.numel(),
                (weight.numel() - rest) // _DROPPED + rest,
                str(weight.dtype).removeprefix("torch."),
                8 * weight.element_size(),
            )
    return done


def smallest(matrix: Tensor, share: float) -> Tensor:
    """Where the ``share`` of least |w| stands, (O, I) bool."""
    count = round(share * matrix.numel())
    order = matrix.abs().flatten().sort(stable=True).indices
    gone = torch.zeros(matrix.numel(), dtype=torch.bool, device=matrix.device)
    gone[order[:count]] = True
    return gone.view(matrix.shape)


def two_of_four(matrix: Tensor) -> Tensor:
    """Where two of every four columns have the least |w|, (O, I) bool."""
    rows, columns = matrix.shape
    whole = columns // _RUN * _RUN
    runs = matrix[:, :whole].abs().reshape(rows, -1, _RUN)
    order = runs.sort(dim=-1, stable=True).indices[..., :_DROPPED]
    gone = torch.zeros(rows, columns, dtype=torch.bool, device=matrix.device)
    gone[:, :whole] = torch.zeros_like(runs, dtype=torch.bool).scatter_(-1, order, True).flatten(1)
    return gone
