"""Verdicts in words: what was measured, the limit, and what follows."""

from __future__ import annotations

from collections.abc import Mapping

from evalharness.gates.judgement import Judgement
from evalharness.gates.limits import Threshold
from evalharness.gates.scopes import label
from evalharness.metrics import REGISTRY
from evalharness.spec.estimate import Estimate
from evalharness.spec.policy import Gate
from evalharness.spec.result import GateResult


def numbers(*values: float | None) -> list[str]:
    """The values with as few digits, from four up, as keep different ones apart."""
    for digits in range(4, 10):
        shown = [_number(v, digits) for v in values]
        if len(set(shown)) == len(set(values)):
            break
    return shown


def _number(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:.{digits}g}"


def more(n: int, metric: str = "") -> str:
    """``12 more documents or items``, or whatever ``metric`` is sampled by."""
    if metric and REGISTRY[metric].of_processes:
        return f"{n:,} more fresh process{'' if n == 1 else 'es'}"
    return f"{n:,} more {'document or item' if n == 1 else 'documents or items'}"


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
    if estimate.at_least:
        got = f"at least {got}"
    if estimate.value is None:
        text = f"{what}: {judged.why}; limit: {wanted}."
    elif judged.verdict == "PASS":
        text = f"{what} is {got}; inside the limit: {wanted}."
    elif judged.verdict == "FAIL":
        text = f"{what} is {got}; outside the limit: {wanted}."
    else:
        text = f"{what} is {got}; limit: {wanted}; {judged.why}."
    if judged.verdict == "INCONCLUSIVE" and judged.further:
        where = " in both runs" if gate.relative_to == "baseline" else ""
        text += f" About {more(judged.further, gate.metric)}{where} would settle it."
    if judged.verdict != "PASS" and estimate.worst:
        text += f" Worst: {estimate.worst}."
    return text


def in_lines(result: GateResult) -> str:
    """What was measured, the limit and the place in the policy, the most telling line first."""
    if result.only_reason:
        return f"{result.verdict}  {result.reason}\n  {result.file}:{result.line}"

    def number(value: float | None) -> str:
        return "none" if value is None else f"{value:.6g}"

    interval = f" [{number(result.low)}, {number(result.high)}]" if result.low is not None else ""
    measured = f"{number(result.observed)}{interval} {result.unit}".rstrip()
    # The first line is what pytest's summary and JUnit's message show.
    lines = [
        f"{result.verdict}  {result.id}: {measured}, limit: {result.side} "
        f"{number(result.threshold)}",
        f"  {result.reason}",
    ]
    if result.file:
        lines.append(f"  {result.file}:{result.line}")
    return "\n".join(lines)
