"""Distribution of the per-token KL."""

from __future__ import annotations

from markupsafe import Markup

from evalharness.report.charts import kl
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import Result


def render(r: Result) -> str:
    """Distribution of the per-token KL."""
    figure = r.figures.kl
    svg = kl.histogram(figure, kl.marks(r)) if figure else ""
    if not svg or figure is None:
        return ""
    total = sum(figure.counts) + figure.zeros
    return template("sections/kl.html.j2", svg=Markup(svg), zeros=figure.zeros, total=total)  # noqa: S704


SECTION = Section(
    "kl",
    "KL divergence over tokens",
    render,
    place=50,
    missing="The distribution of KL was not measured.",
)
