"""A gate's verdict in words: what was measured, what was asked, why that gives this verdict."""

from __future__ import annotations

from evalharness.gates.limits import counted, whose_fewest
from evalharness.gates.scopes import label
from evalharness.gates.wording import more, numbers
from evalharness.spec.policy import Gate, Policy
from evalharness.spec.result import GateResult


def explain(gate: GateResult, policy: Policy) -> str:
    """Say in plain words, line by line, why ``gate`` has its verdict."""
    rule = policy.gate(gate.rule or gate.id)
    waived = gate.waiver is not None and gate.verdict != "PASS"
    blocks = "waived" if waived else "blocking" if gate.blocking else "not blocking"
    lines = [f"{gate.id}: {gate.verdict} ({gate.severity}; {blocks})", ""]
    if rule is None:  # an expired waiver, which stands for itself
        return "\n".join([*lines, f"In full:   {gate.reason}"])
    lines += [f"Asked:     {_asked(gate, rule)}", f"Measured:  {_measured(gate)}"]
    if gate.min_n is not None:
        lines.append(f"At least:  {gate.min_n} {counted(rule)}, {whose_fewest(rule)}")
    lines += [f"Verdict:   {_why(gate, rule)}"]
    if gate.worst and gate.verdict != "PASS":
        lines.append(f"Worst:     {gate.worst}")
    if gate.waiver:
        lines.append(f"Waived:    {gate.waiver}")
    lines.append(f"In full:   {gate.reason}")
    if advice := _advice(gate):
        lines.append(f"Next:      {advice}")
    return "\n".join(lines)


def _asked(gate: GateResult, rule: Gate | None) -> str:
    side = "at most" if gate.side == "max" else "at least"
    limit = "a limit that is not known" if gate.threshold is None else f"{gate.threshold:.6g}"
    unit = f" {gate.unit}" if gate.unit not in ("", "1", "ratio") else ""
    where = f" ({gate.file}:{gate.line})" if gate.file else ""
    scope = f" of {label(gate.scope)}" if gate.scope else ""
    text = f"{gate.metric}{scope} {side} {limit}{unit}{where}"
    if rule and rule.relative_to:
        text += f", relative to the {rule.relative_to}"
    if rule and rule.unless:
        ways = " or ".join(condition.metric for condition in rule.unless.any)
        text += f"; a looser limit can be earned by {ways}"
    return text


def _measured(gate: GateResult) -> str:
    if gate.observed is None:
        return "nothing that counts"
    value, low, high = numbers(gate.observed, gate.low, gate.high)
    unit = f" {gate.unit}" if gate.unit not in ("", "1", "ratio") else ""
    if gate.low is None:
        return f"{value}{unit}, without an interval"
    if gate.low == gate.high:
        return f"{value}{unit}, exactly"
    return (
        f"{value}{unit}, between {low} and {high}: each end is a bound at {gate.confidence:.4g} "
        "confidence"
    )


def _why(gate: GateResult, rule: Gate | None) -> str:
    kept, broken = ("below", "above") if gate.side == "max" else ("above", "below")
    bound = "" if gate.bound is None else f" ({gate.bound:.6g})"
    if gate.verdict == "ANOMALOUS":
        return "the data cannot be trusted, so that nothing is decided on it."
    if gate.observed is None:
        return "what was not measured, or has no value, is never a PASS."
    exact = gate.low is not None and gate.low == gate.high
    if gate.verdict != "INCONCLUSIVE" and (exact or (rule and rule.decide == "point")):
        place = "inside" if gate.verdict == "PASS" else "outside"
        return f"the value alone decides, and it is {place} the limit."
    if gate.verdict == "PASS" and rule and rule.decide == "not-worse":
        return "decide: not-worse asks that the value is inside and is not shown to be outside."
    if gate.verdict == "PASS":
        return f"the whole interval is {kept} the limit: even its far end{bound} keeps it."
    if gate.verdict == "FAIL":
        return f"the whole interval is {broken} the limit: even its near end{bound} breaks it."
    if gate.low is None:
        return "without an interval nobody knows how far chance alone would move the value."
    if _beyond(gate):
        return (
            f"by itself the interval is {broken} the limit; among all the gates that were tested "
            "at once that may be chance (Holm), so that it is no FAIL."
        )
    return "the truth may lie on either side of the limit: the data do not say which."


def _beyond(gate: GateResult) -> bool:
    """Whether the whole interval breaks the limit."""
    if gate.threshold is None or gate.low is None or gate.high is None:
        return False
    return gate.low > gate.threshold if gate.side == "max" else gate.high < gate.threshold


def _advice(gate: GateResult) -> str:
    if gate.verdict == "PASS" or gate.waiver:
        return ""
    if gate.verdict == "ANOMALOUS":
        return "find out what the anomaly is before reading any number of this run."
    if gate.observed is None:
        return "add what measures it to the suite (corpora, tasks, probes), or read the reason."
    if gate.verdict == "FAIL":
        return "look at the worst offender; `evalharness show RUN` has the rest."
    if gate.further_documents:
        return f"measure about {more(gate.further_documents, gate.metric)}."
    return "measure more documents or items, or move the limit away from what is measured."
