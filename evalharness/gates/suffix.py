"""What ``%`` and ``pp`` may follow: a limit that reads two ways is refused, not guessed.

98%, of a fraction or ratio          0.98
2pp, of a difference of fractions    0.02
2%, with relative_to                 a share of the named value
2%, of a difference                  refused: points, or a share of the reference's value?
2%, of perplexity.ratio              refused: 0.02, or 1.02?
"""

from __future__ import annotations

from evalharness.metrics import REGISTRY, Metric
from evalharness.spec.limit import Limit
from evalharness.spec.policy import Gate, Place
from evalharness.spec.yamlfile import KeyPath

_FRACTIONS = ("1", "fraction", "ratio", "relative L2")  # units in which 98% is a number
_POINTS = ("fraction", "as the task")  # units whose differences are in percentage points


def check_suffix(
    at: Gate | Place,
    limit: Limit,
    info: Metric,
    relative_to: str | None,
    key: KeyPath,
) -> None:
    """Raise `InputError` for a percentage, or points, that could be read in two ways or none."""
    if limit.suffix == "pp":
        problem = _points(limit, info, relative_to)
    elif relative_to == "reference" and limit.suffix == "":
        problem = (
            f"must be a percentage of the reference's own value (got '{limit}')",
            f"Write {Limit(limit.number, '%')}, or drop relative_to: reference.",
        )
    elif limit.suffix == "%" and relative_to is None:
        problem = _percentage(limit, info, own_value(info) is not None)
    else:
        return
    if problem is not None:
        raise at.error(problem[0], key, problem[1])


def own_value(info: Metric) -> str | None:
    """The metric that holds the reference's own value, as ``task.score.reference``."""
    name = info.id.removesuffix(".shift") + ".reference"
    return name if info.difference and name in REGISTRY else None


def _points(limit: Limit, info: Metric, relative_to: str | None) -> tuple[str, str] | None:
    if relative_to == "reference":
        return "points cannot be relative to the reference", f"Write {str(limit)[:-2]}%."
    if info.difference and info.unit in _POINTS:
        return None
    return (
        f"points are for differences of fractions (got '{limit}'; {info.id} is in {info.unit})",
        f"Write a number, such as {limit.number:.10g}.",
    )


def _percentage(limit: Limit, info: Metric, has_reference: bool) -> tuple[str, str] | None:
    number = f"{limit.number:.10g}"
    if info.difference:
        points = info.unit in _POINTS
        ways = f"{str(limit)[:-1]}pp for percentage points" if points else number
        if has_reference:
            ways += ", or add relative_to: reference for a share of the reference's own value"
        return f"'{limit}' of a difference is ambiguous", f"Write {ways}."
    if info.unit not in _FRACTIONS:
        problem = f"must be a number in {info.unit} (got '{limit}')"
        return problem, f"A percentage of {info.unit} has no meaning."
    # Nobody asks for a candidate of half the perplexity: such a percentage means "above".
    if info.ideal == 1 and info.direction == "lower" and limit.number < 0.5:
        worse = Limit(1 + limit.number, "%")
        return (
            f"'{limit}' of a ratio is ambiguous: it may be {limit} of the reference, or that much "
            "above it",
            f"Write {worse} or {worse.number:.10g} for {limit} above it.",
        )
    return None
