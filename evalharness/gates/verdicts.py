"""A policy and a run's estimates: the verdicts.

    cases      each gate in each scope it matches, judged on its interval     (cases, judge)
    Holm       FAILs that many tests would throw up by chance are withdrawn   (here)
    anomalies  nothing passes on data that cannot be trusted                  (here)
    waivers    what was accepted, by whom, until when                         (waivers)
    gates      one result a gate, or one a scope with `each`                  (here)
    policy     one verdict, one sentence, one exit code                       (overall)

A policy passes when every gate does, which needs no correction for their number (an intersection-
union test). A FAIL says that this candidate is outside that limit, so FAILs are Holm-corrected:
over the blocking gates, and separately over the rest, so that a gate which only warns never
weakens one that blocks, and with weights, so that a gate over thirty layers counts as one gate.
With a single test nothing is corrected. Verdicts that are no tests (a
count, `decide: point`, a metric that is missing) are left as they are and not counted.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from evalharness.gates.baseline import StoredBaseline, refuse_incomparable
from evalharness.gates.cases import Bench, Case
from evalharness.gates.holm import levels
from evalharness.gates.judgement import interval_of, two_sided
from evalharness.gates.limits import fewest
from evalharness.gates.overall import Decision, overall
from evalharness.gates.policy_files import default_id
from evalharness.gates.ratchet import Ratchet
from evalharness.gates.scopes import chosen, covers
from evalharness.gates.waivers import Waivers, expired
from evalharness.gates.wording import reason
from evalharness.metrics import REGISTRY, Estimates
from evalharness.spec.estimate import Scope, Verdict
from evalharness.spec.policy import Gate, GivenWaiver, Policy
from evalharness.spec.result import Anomaly, GateResult
from evalharness.stats.planning import further_documents

_WORST_FIRST: tuple[Verdict, ...] = ("FAIL", "ANOMALOUS", "INCONCLUSIVE", "PASS")


def decide(
    policy: Policy,
    estimates: Estimates,
    *,
    anomalies: Sequence[Anomaly] = (),
    today: dt.date | None = None,
    baseline: StoredBaseline | None = None,
    identity: Mapping[str, str] | None = None,
) -> Decision:
    """Decide every gate of ``policy``.

    Parameters
    ----------
    policy : checked against the metrics (`load_policy` does it).
    estimates : what the run measured.
    anomalies : what makes the run untrustworthy, as from `find_anomalies`.
    today : the day on which waivers are looked at; default: this one.
    baseline, identity : a stored run, and the present run's hashes to hold it against.

    Raises
    ------
    InputError
        A scope matches nothing of what was measured; a limit is inside the noise floor; a baseline
        is needed and missing, is of another tokenizer or metric version, or of other data that
        has nothing in common with the run's.

    """
    relative = [gate for gate in policy.gates if gate.relative_to == "baseline"]
    if baseline is not None and relative:
        refuse_incomparable(relative[0], baseline, identity or {}, "tokenizer", "metrics")
    ratchet = None if baseline is None else Ratchet(baseline, estimates, identity or {})
    bench = Bench(estimates, ratchet, policy.confidence)
    cases = [case for gate in policy.gates for case in bench.cases(gate)]
    cases = _corrected(cases, bench)
    cases = [_with_further(_distrusted(case, anomalies, bench), bench) for case in cases]
    waivers = Waivers(policy.waivers, today or dt.date.today())
    cases = [_waived(case, waivers, bench) for case in cases]
    results = [
        result for gate in policy.gates for result in _results(gate, cases, policy.confidence)
    ]
    return overall(policy, results + waivers.failures(policy), waivers, anomalies)


def _corrected(cases: Sequence[Case], bench: Bench) -> list[Case]:
    """Withdraw the FAILs that do not survive Holm's correction within their family.

    Each is judged again at its level, by the estimator: an interval stretched by t would be too
    short where documents are skewed.
    """
    corrected = list(cases)
    for blocking in (True, False):
        family = [
            (index, case.judged.p)
            for index, case in enumerate(cases)
            if (case.gate.severity == "error") == blocking and case.judged.p is not None
        ]
        # A lone test was decided by its interval; p only repeats that, up to rounding.
        if len(family) < 2:
            continue
        matches = Counter(cases[index].gate.id for index, _ in family)
        weights = [1 / matches[cases[index].gate.id] for index, _ in family]

        def fails(member: int, level: float, family: list[tuple[int, float]] = family) -> bool:
            case = cases[family[member][0]]
            return case.judged.verdict == "FAIL" and bench.fails(case, level)

        found = levels([p for _, p in family], weights, 1 - bench.confidence, fails)
        for member, level in enumerate(found):
            index = family[member][0]
            case = cases[index]
            if case.judged.verdict == "FAIL" and not fails(member, level):
                judged = case.judged.withdrawn(level, len(family))
                corrected[index] = replace(case, judged=judged)
    return corrected


def _distrusted(case: Case, anomalies: Sequence[Anomaly], bench: Bench) -> Case:
    """ANOMALOUS instead of any verdict but FAIL, where an anomaly touches what was measured.

    FAIL stays: a candidate bad enough to emit NaN is a bad candidate, not an invalid run.
    """
    if case.judged.verdict == "FAIL":
        return case
    for anomaly in anomalies:
        if anomaly.metric is None:
            # Bits and bytes are counted from the weights, whatever became of the pass.
            touched = not REGISTRY[case.gate.metric].deterministic
        else:
            touched = anomaly.metric == case.gate.metric and (
                covers(case.scope, anomaly.scope) or bench.overlap(case.scope, anomaly.scope)
            )
        if touched:
            judged = replace(case.judged, verdict="ANOMALOUS", why="its data cannot be trusted")
            return replace(case, judged=judged, remark=f"Anomaly: {anomaly.message}.")
    return case


def _with_further(case: Case, bench: Bench) -> Case:
    """Add how many more documents would settle an INCONCLUSIVE verdict."""
    judged, limit = case.judged, case.judged.limit
    if judged.verdict != "INCONCLUSIVE" or judged.further is not None or limit is None:
        return case
    if (
        judged.estimate.low is None
        or judged.estimate.at_least
        or limit.value is None
        or limit.strict != limit.loose
    ):
        return case
    own = bench.of(case.gate)
    confidence = own.confidence if judged.level is None else 1 - judged.level
    interval = interval_of(own.at_once(case), own.confidence)
    further = further_documents(interval, limit.value, two_sided(confidence))
    return replace(case, judged=replace(judged, further=further or None))


def _waived(case: Case, waivers: Waivers, bench: Bench) -> Case:
    waiver, remark = waivers.covering(
        case.gate, case.scope, case.judged.verdict, partial(bench.keeps, case)
    )
    return replace(case, waiver=waiver, remark=f"{case.remark} {remark}".strip())


def _results(gate: Gate, cases: Sequence[Case], confidence: float) -> list[GateResult]:
    own = [case for case in cases if case.gate is gate]
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


def expired_waivers(policy: Policy, today: dt.date | None = None) -> list[GivenWaiver]:
    """The waivers that fail by themselves from their last day on."""
    return [w for w in policy.waivers if expired(w, today or dt.date.today())]


def result_ids(gate: Gate, estimates: Estimates | None) -> list[str]:
    """The ids of the results that ``gate`` will have in a run of these ``estimates``."""
    found = chosen(estimates, gate.metric, gate.scope) if gate.each and estimates else []
    return [_result_id(gate, scope) for scope in found] or [gate.id]


def _result_id(gate: Gate, scope: Scope) -> str:
    if not scope:
        return gate.id
    return default_id(gate.id if "id" in gate.places else gate.metric, scope)


def _others(cases: Sequence[Case], shown: Case) -> str:
    """What became of the other matches of a gate."""
    if len(cases) == 1:
        return ""
    counts = {v: sum(u.judged.verdict == v for u in cases) for v in _WORST_FIRST}
    text = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    waived = sum(u.waiver is not None for u in cases)
    return f"The worst of {len(cases)}: {text}" + (f", {waived} waived." if waived else ".")


def _result(case: Case, id: str, confidence: float, others: str) -> GateResult:
    gate, judged = case.gate, case.judged
    estimate, limit = judged.estimate, judged.limit
    lets = {"INCONCLUSIVE": gate.on_inconclusive, "ANOMALOUS": gate.on_anomalous}
    blocking = (
        gate.severity == "error"
        and case.waiver is None
        and lets.get(judged.verdict, "block") == "block"
    )
    texts = (reason(gate, judged, case.note), others, case.remark)
    return GateResult(
        id=id,
        rule=gate.id,
        metric=gate.metric,
        scope=case.scope,
        verdict=judged.verdict,
        observed=estimate.value,
        low=estimate.low,
        high=estimate.high,
        bound=judged.bound,
        threshold=_asked(gate) if limit is None else limit.value,
        side=limit.side if limit else "max" if gate.max else "min",
        severity=gate.severity,
        blocking=blocking,
        confidence=confidence,
        unit=estimate.unit,
        at_least=estimate.at_least,
        reason=" ".join(text for text in texts if text),
        worst=estimate.worst,
        further_documents=judged.further,
        min_n=None if REGISTRY[gate.metric].deterministic else fewest(gate),
        waiver=case.waiver,
        file=gate.file,
        line=gate.line,
    )


def _asked(gate: Gate) -> float | None:
    """The limit of a gate whose metric is missing, where the file alone says it."""
    limit = gate.max or gate.min
    return None if limit is None or gate.relative_to is not None else limit.number
