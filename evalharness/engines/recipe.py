"""A whole ``simulate:`` recipe applied to a model, in the order that its parts are deployed in.

pruning ──► weights: what is zero stays zero, since every grid has a zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from evalharness.engines.pruning import Pruned, prune
from evalharness.engines.simulate import Quantized, fake_quantize
from evalharness.spec.simulate import Simulate

Made = Quantized | Pruned  # what was done to one weight


def simulate(model: nn.Module, recipe: Simulate) -> Mapping[str, Made]:
    """Change ``model`` in place; returns what each weight stands for, by the name of its module."""
    pruned = prune(model, recipe.pruning) if recipe.pruning else {}
    quantized = fake_quantize(model, recipe.weights) if recipe.weights else {}
    both = {n: replace(p, quantized=quantized.get(n)) for n, p in pruned.items()}
    return quantized | both
