"""A policy and a run's estimates: the verdicts.

    units      each gate in each scope it matches, judged on its interval     (units, judge)
    Holm       FAILs that many tests would throw up by chance are withdrawn   (here)
    anomalies  nothing passes on data that cannot be trusted                  (here)
    waivers    what was accepted, by whom, until when                         (waivers)
    gates      one result a gate, or one a scope with `each`                  (here)
    policy     one verdict, one sentence, one exit code                       (overall)

A policy passes when every gate does, which needs no correction for their number (an intersection-
union test). A FAIL says that this candidate is outside that limit, so FAILs are Holm-corrected:
over the blocking gates, and apart from them over the rest, so that a gate which only warns never
weakens one that blocks. With a single test nothing is corrected. Verdicts that are no tests (a
count, `decide: point`, a metric that is missing) are left as they are and not counted.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from evalharness.gates.baseline import refuse_incomparable
from evalharness.gates.interfaces import Baseline, Estimates, Registry, registry
from evalharness.gates.judge import holm
from evalharness.gates.overall import Decision, overall
from evalharness.gates.scopes import covers, matching
from evalharness.gates.units import Bench, Unit
from evalharness.gates.waivers import Waivers
from evalharness.gates.wording import reason
from evalharness.spec.policy import Gate, Policy
from evalharness.spec.resolve import default_id
from evalharness.spec.result import Anomaly, Estimate, GateResult, Scope, Verdict

_WORST_FIRST: tuple[Verdict, ...] = ("FAIL", "ANOMALOUS", "INCONCLUSIVE", "PASS")


def decide(
    policy: Policy,
    estimates: Estimates,
    *,
    anomalies: Sequence[Anomaly] = (),
    today: dt.date | None = None,
    baseline: Baseline | None = None,
    identity: Mapping[str, str] | None = None,
    metrics: Registry | None = None,
) -> Decision:
    """Decide every gate of ``policy``.

    Parameters
    ----------
    policy : checked against ``metrics`` (`load_policy` does it).
    estimates : what the run measured.
    anomalies : what makes the run untrustworthy, as from `find_anomalies`.
    today : the day on which waivers are looked at; default: this one.
    baseline, identity : a stored run, and the present run's hashes to hold it against.
    metrics : the registry; default: all that are registered.

    Raises
    ------
    InputError
        A scope matches nothing of what was measured; a limit is inside the noise floor; a baseline
        is needed and missing, or is of other data, tokenizer or metric version.

    """
    if baseline is not None and any(gate.relative_to == "baseline" for gate in policy.gates):
        refuse_incomparable(baseline, identity or {})
    bench = Bench(
        estimates, registry() if metrics is None else metrics, baseline, policy.confidence
    )
    units = [unit for gate in policy.gates for unit in bench.units(gate)]
    units = _corrected(units, bench.confidence)
    units = [_with_further(_distrusted(unit, anomalies, bench), bench) for unit in units]
    waivers = Waivers(policy.waivers, today or dt.date.today())
    units = [_waived(unit, waivers, bench) for unit in units]
    results = [
        result for gate in policy.gates for result in _results(gate, units, policy.confidence)
    ]
    return overall(policy, results, waivers, anomalies)


def _corrected(units: Sequence[Unit], confidence: float) -> list[Unit]:
    """Withdraw the FAILs that do not survive Holm's correction within their family."""
    corrected, alpha = list(units), 1 - confidence
    for blocking in (True, False):
        family = [
            (index, unit.judged.p)
            for index, unit in enumerate(units)
            if (unit.gate.severity == "error") == blocking and unit.judged.p is not None
        ]
        # A lone test was decided by its interval; p only repeats that, up to rounding.
        if len(family) < 2:
            continue
        for (index, _), holds in zip(family, holm([p for _, p in family], alpha), strict=True):
            unit = units[index]
            if unit.judged.verdict == "FAIL" and not holds:
                judged = unit.judged.withdrawn(len(family), alpha)
                corrected[index] = replace(unit, judged=judged)
    return corrected


def _distrusted(unit: Unit, anomalies: Sequence[Anomaly], bench: Bench) -> Unit:
    """ANOMALOUS instead of any verdict but FAIL, where an anomaly touches what was measured.

    FAIL stays: a candidate bad enough to emit NaN is a bad candidate, not an invalid run.
    """
    if unit.judged.verdict == "FAIL":
        return unit
    for anomaly in anomalies:
        if anomaly.metric is None:
            # Bits and bytes are counted from the weights, whatever became of the pass.
            touched = not bench.metrics[unit.gate.metric].deterministic
        else:
            touched = anomaly.metric == unit.gate.metric and covers(unit.scope, anomaly.scope)
        if touched:
            judged = replace(unit.judged, verdict="ANOMALOUS", why="its data cannot be trusted")
            return replace(unit, judged=judged, remark=f"Anomaly: {anomaly.message}.")
    return unit


def _with_further(unit: Unit, bench: Bench) -> Unit:
    """Add how many more documents would settle an INCONCLUSIVE verdict."""
    judged, limit = unit.judged, unit.judged.limit
    if judged.verdict != "INCONCLUSIVE" or judged.further is not None or limit is None:
        return unit
    if judged.estimate.low is None or limit.value is None or limit.strict != limit.loose:
        return unit
    further = further_documents(judged.estimate, limit.value, bench.confidence)
    return replace(unit, judged=replace(judged, further=further))


def further_documents(estimate: Estimate, limit: float, confidence: float) -> int | None:
    try:
        from evalharness.stats import further_documents as f
    except ImportError:
        return None
    return f(estimate, limit, confidence)


def _waived(unit: Unit, waivers: Waivers, bench: Bench) -> Unit:
    waiver, remark = waivers.covering(
        unit.gate, unit.scope, unit.judged.verdict, partial(bench.keeps, unit)
    )
    return replace(unit, waiver=waiver, remark=f"{unit.remark} {remark}".strip())


def _results(gate: Gate, units: Sequence[Unit], confidence: float) -> list[GateResult]:
    own = [unit for unit in units if unit.gate is gate]
    if gate.each:
        return [_result(u, _result_id(gate, u.scope), confidence, "") for u in own]
    # What is waived hides nothing: it is shown only when nothing else stands in the way.
    worst = min(
        own,
        key=lambda u: (
            u.waiver is not None or u.judged.verdict == "PASS",
            _WORST_FIRST.index(u.judged.verdict),
            -u.excess,
        ),
    )
    return [_result(worst, gate.id, confidence, _others(own, worst))]


def result_ids(gate: Gate, scopes: Sequence[Scope]) -> list[str]:
    """The ids of the results that ``gate`` will have in a run with these ``scopes``."""
    found = matching(gate.scope, scopes) if gate.each else []
    return [_result_id(gate, scope) for scope in found] or [gate.id]


def _result_id(gate: Gate, scope: Scope) -> str:
    if not scope:
        return gate.id
    return default_id(gate.id if "id" in gate.places else gate.metric, scope)


def _others(units: Sequence[Unit], shown: Unit) -> str:
    """What became of the other matches of a gate."""
    if len(units) == 1:
        return ""
    counts = {v: sum(u.judged.verdict == v for u in units) for v in _WORST_FIRST}
    text = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    waived = sum(u.waiver is not None for u in units)
    return f"The worst of {len(units)}: {text}" + (f", {waived} waived." if waived else ".")


def _result(unit: Unit, id: str, confidence: float, others: str) -> GateResult:
    gate, judged = unit.gate, unit.judged
    estimate, limit = judged.estimate, judged.limit
    lets = {"INCONCLUSIVE": gate.on_inconclusive, "ANOMALOUS": gate.on_anomalous}
    blocking = (
        gate.severity == "error"
        and unit.waiver is None
        and lets.get(judged.verdict, "block") == "block"
    )
    texts = (reason(gate, judged, unit.note), others, unit.remark)
    return GateResult(
        id=id,
        rule=gate.id,
        metric=gate.metric,
        scope=unit.scope,
        verdict=judged.verdict,
        observed=_finite(estimate.value),
        low=_finite(estimate.low),
        high=_finite(estimate.high),
        bound=_finite(judged.bound),
        threshold=None if limit is None else limit.value,
        side=limit.side if limit else "max" if gate.max else "min",
        severity=gate.severity,
        blocking=blocking,
        confidence=confidence,
        unit=estimate.unit,
        reason=" ".join(text for text in texts if text),
        worst=estimate.worst,
        further_documents=judged.further,
        waiver=unit.waiver,
        file=gate.file,
        line=gate.line,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
