"""Metrics: records in, estimates out. One file a family; each registers what it is."""

from __future__ import annotations

import sys

from evalharness.metrics.estimates import Estimates
from evalharness.metrics.evidence import Evidence
from evalharness.metrics.families import FAMILIES, Family
from evalharness.metrics.registry import REGISTRY, Measured, Metric, Spread, mean_metric, metric
from evalharness.spec.plugins import built_in

for _module in built_in(sys.modules[__name__]):
    pass  # a module registers its metrics as it is imported

__all__ = [
    "FAMILIES",
    "REGISTRY",
    "Estimates",
    "Evidence",
    "Family",
    "Measured",
    "Metric",
    "Spread",
    "mean_metric",
    "metric",
]
