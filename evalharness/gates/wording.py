"""Verdicts in words: what was measured, the limit, and what follows."""

from __future__ import annotations

from collections.abc import Mapping

from evalharness.gates.judgement import Judgement
from evalharness.gates.limits import Threshold
from evalharness.gates.scopes import label
from evalharness.spec.estimate import Estimate
from evalharness.spec.policy import Gate


def numbers(*values: float | None) -> list[str]:
    """The values with as few digits, from four up, as keep different ones apart."""
    for digits in range(4, 10):
        shown = [_number(v, digits) for v in values]
        if len(set(shown)) == len(set(values)):
            break
    return shown


def _number(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:.{digits}g}"


def limit_words(limit: Threshold, shown: str | None = None) -> str:
    """``at most 1.02``."""
    if limit.value is None:
        return "unknown"
    return f"at {'most' if limit.side == 'max' else 'least'} {shown or numbers(limit.value)[0]}"


def measured(estimate: Estimate, limit: Threshold) -> tuple[str, str]:
    """``1.034 [1.029, 1.04]`` and ``at most 1.02``, with digits enough to tell them apart."""
    value, low, high, shown = numbers(estimate.value, estimate.low, estimate.high, limit.value)
    exact = estimate.low is None or estimate.low == estimate.high
    return value if exact else f"{value} [{low}, {high}]", limit_words(limit, shown)


def subject(metric: str, scope: Mapping[str, str]) -> str:
    """``task.score.shift of task=arc_easy``."""
    return f"{metric} of {label(scope)}" if scope else metric


def reason(gate: Gate, judged: Judgement, note: str = "") -> str:
    """One to three sentences: what was measured, the limit, the worst offender, what to do."""
    estimate, limit = judged.estimate, judged.limit
    what = subject(gate.metric, estimate.scope)
    if limit is None:  # not measured at all
        return f"{what} {judged.why}."
    got, wanted = measured(estimate, limit)
    wanted += note
    if estimate.value is None:
        text = f"{what}: {judged.why}; limit: {wanted}."
    elif judged.verdict == "PASS":
        text = f"{what} is {got}; inside the limit: {wanted}."
    elif judged.verdict == "FAIL":
        text = f"{what} is {got}; outside the limit: {wanted}."
    else:
        text = f"{what} is {got}; limit: {wanted}; {judged.why}."
    if judged.verdict == "INCONCLUSIVE" and judged.further:
        text += f" About {judged.further:,} more documents or items would settle it."
    if judged.verdict != "PASS" and estimate.worst:
        text += f" Worst: {estimate.worst}."
    return text
