"""Estimates with intervals, by family."""

from __future__ import annotations

from evalharness.report import estimates
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result


def render(r: Result) -> str:
    """Estimates with intervals, by family."""
    groups = estimates.families(r, ("loss", "divergence", "logits", "calibration", "other"))
    return template("sections/metrics.html.j2", groups=groups) if groups else ""


SECTION = Section("metrics", "Metrics", render, place=30, missing="No metric was measured.")
