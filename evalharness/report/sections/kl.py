"""Distribution of the per-token KL, and its mean by the reference's confidence."""

from __future__ import annotations

from markupsafe import Markup

from evalharness.report import numbers
from evalharness.report.charts import kl
from evalharness.report.interval_bars import axis, forest_bar
from evalharness.report.section import Section
from evalharness.report.templates import template
from evalharness.spec.result import ConfidenceBin, Result


def render(r: Result) -> str:
    """Distribution of the per-token KL, and its mean by the reference's confidence."""
    figure = r.figures.kl
    svg = kl.histogram(figure, kl.marks(r)) if figure else ""
    if not svg or figure is None:
        return ""
    return template(
        "sections/kl.html.j2",
        svg=Markup(svg),  # noqa: S704
        zeros=figure.zeros,
        total=sum(figure.counts) + figure.zeros,
        bins=drawn(r.figures.kl_by_confidence),
    )


def drawn(bins: list[ConfidenceBin]) -> list[tuple[ConfidenceBin, Markup]]:
    """Return each bin with its interval, on a scale that they share."""
    scale = axis([0.0, *(x for b in bins for x in (b.kl.value, b.kl.low, b.kl.high))])
    return [
        (b, forest_bar(scale, b.kl.value, b.kl.low, b.kl.high, str(numbers.estimate(b.kl))))
        for b in bins
    ]


SECTION = Section(
    "kl",
    "KL divergence over tokens",
    render,
    place=50,
    missing="The distribution of KL was not measured.",
)
