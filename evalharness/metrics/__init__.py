"""Metrics: records in, estimates out. One file a family; each registers what it is."""

from __future__ import annotations

from importlib.metadata import entry_points

from evalharness.metrics import (
    calibration,
    cost,
    divergence,
    layers,
    perplexity,
    routing,
    tasks,
    weights,
)
from evalharness.metrics.estimates import Estimates
from evalharness.metrics.evidence import Evidence
from evalharness.metrics.registry import REGISTRY, Measured, Metric, metric

for _entry in entry_points(group="evalharness.metrics"):
    _entry.load()

__all__ = [
    "REGISTRY",
    "Estimates",
    "Evidence",
    "Measured",
    "Metric",
    "calibration",
    "cost",
    "divergence",
    "layers",
    "metric",
    "perplexity",
    "routing",
    "tasks",
    "weights",
]
