"""Resolvable or refused: how many documents or items a policy needs, before a model is loaded.

A limit is resolvable when, were the candidate perfect (a shift of 0, no flip), the interval that
so many documents give would lie inside it. A suite too small for that can only ever answer
INCONCLUSIVE, so it is refused, with the number that it takes. Beside it stands the number that
gives a good candidate its PASS four times in five.

Both are of the interval that will decide, at the gate's own share of the error (`forecast`): with
what it does for skewness and for what was not drawn, Student's t, Tango's score or Clopper and
Pearson's end. Holm's correction is not in them: it withdraws FAILs, and takes no PASS away. Where
documents are looked at as they come in (`--stop-early`, `--looks`), it takes more of them.
Divergences have no least number: their spread shrinks with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from evalharness.gates.forecast import rate_needed, reach_of
from evalharness.gates.judgement import interval_of, two_sided
from evalharness.gates.limits import Side, fewest, own_confidence, whose_fewest
from evalharness.gates.scopes import chosen
from evalharness.gates.sizes import Sizes, effective, held, unit_of
from evalharness.metrics import REGISTRY, Estimates, Metric, Spread
from evalharness.spec.limit import Limit
from evalharness.spec.policy import Gate, Policy
from evalharness.stats.planning import clusters_needed

_POWER = 0.8
_NEVER = 10**9  # more than any suite has


@dataclass(frozen=True)
class Need:
    """What one gate needs, in documents or items of each scope that it is decided in."""

    gate: str
    metric: str
    side: Side
    margin: float  # from the limit to the best possible value
    unit: str  # documents or items
    spread: Spread
    to_decide: int  # fewest that could ever give PASS
    to_pass: int | None  # with 80% power at the expected value; None where that is at the limit
    have: int | None  # what the suite has; None where not known


def needs(
    policy: Policy,
    spreads: Mapping[str, Sequence[Spread]] | None = None,
    sizes: Sizes | None = None,
) -> list[Need]:
    """What each gate of ``policy`` needs; gates without a planning bound are left out."""
    return [need for gate in policy.gates for need in _needs(gate, policy, spreads or {}, sizes)]


def check_resolvable(
    policy: Policy,
    sizes: Sizes,
    spreads: Mapping[str, Sequence[Spread]] | None = None,
) -> None:
    """Raise `InputError` for the first gate that the suite could never decide."""
    for gate in policy.gates:
        have = held(gate, REGISTRY[gate.metric], sizes)
        unit = unit_of(gate, REGISTRY[gate.metric])
        if have is not None and have < fewest(gate) and not REGISTRY[gate.metric].deterministic:
            given = gate.min_n is not None
            probed = "layer" in REGISTRY[gate.metric].scope_keys
            if gate.severity == "info" and not given:
                continue
            raise gate.error(
                f"needs {fewest(gate):,} {unit}, {whose_fewest(gate)}, and the suite "
                f"{'probes' if probed else 'has'} {have:,}",
                ("min_n",) if given else (),
                f"Raise {'layers: {windows: N} and ' if probed else ''}the suite's number of {unit}"
                f", or {'lower' if given else 'give a lower'} min_n.",
            )
    for need in needs(policy, spreads, sizes):
        found = policy.gate(need.gate)
        assert found is not None
        enough = need.have is None or need.have >= need.to_decide
        if enough or found.severity == "info":
            continue
        confidence = own_confidence(found, policy.confidence)
        reach = resolved(need.metric, need.have or 0, confidence, need.spread)
        limit = getattr(found, need.side)
        raise found.error(
            f"{need.have:,} {need.unit} can never decide a {need.side} of {limit} at "
            f"{confidence:.4g} confidence: even for a perfect candidate it takes "
            f"{need.to_decide:,} (planning spread {need.spread.sd:.3g}, {need.spread.source})",
            (need.side,),
            f"Measure at least {need.to_decide:,} {need.unit}, or give a limit at least "
            f"{reach:.2g} from the best possible value. Where an earlier run of such a pair varied "
            "less, `--plan-from RUN` takes its spread.",
        )


def spreads_from(
    policy: Policy, estimates: Estimates, source: str
) -> dict[str, tuple[Spread, ...]]:
    """Planning spreads of the policy's gates from an earlier run, one for each scope."""
    found: dict[str, tuple[Spread, ...]] = {}
    for gate in policy.gates:
        confidence = own_confidence(gate, policy.confidence)
        for scope in chosen(estimates, gate.metric, gate.scope):
            one = estimates.at_once(gate.metric, scope, two_sided(confidence))
            if one.value is None or one.low is None or one.high is None or one.clusters < 2:
                continue
            # Half the interval over its t, and not `se`, which may be on a log scale.
            half = (one.high - one.low) / 2
            sd = half / float(stdtrit(one.clusters - 1, confidence)) * math.sqrt(one.clusters)
            parts = estimates.parts(gate.metric, scope)
            known = interval_of(one, confidence)
            spread = Spread(sd, one.value, source, parts=parts, interval=known)
            found[gate.id] = (*found.get(gate.id, ()), spread)
    return found


def _needs(
    gate: Gate,
    policy: Policy,
    spreads: Mapping[str, Sequence[Spread]],
    sizes: Sizes | None,
) -> Iterator[Need]:
    info = REGISTRY[gate.metric]
    known = spreads.get(gate.id) or ([] if info.spread is None else [info.spread])
    best = info.ideal
    # Only an interval that must fit inside the limit needs a size; a baseline is not known yet.
    if info.deterministic or gate.decide != "confident" or gate.relative_to == "baseline":
        return
    if not known or best is None:
        return
    confidence = own_confidence(gate, policy.confidence)
    have = None if sizes is None else effective(gate, info, sizes, 1 - confidence)
    # min_n counts what there is, and `have` what that is worth.
    whole = None if sizes is None else held(gate, info, sizes)
    fewest_of_all = math.ceil(fewest(gate) * (have / whole if have and whole else 1.0))
    sides: tuple[Side, ...] = ("max", "min")
    for side in sides:
        limit = _loosest(gate, side)
        if limit is None:
            continue
        margin = limit.number - best if side == "max" else best - limit.number
        if gate.relative_to == "reference":
            margin = abs(limit.number)  # the reference's score is at most 1
        if margin <= 0:
            continue  # asks for better than the reference: that is for the data to say
        plans = [_plan(info, one.within(margin), side, best, margin, confidence) for one in known]
        spread, least, enough = max(plans, key=lambda plan: plan[2] or math.inf)
        least = max(fewest_of_all, *(plan[1] for plan in plans))
        yield Need(
            gate=gate.id,
            metric=gate.metric,
            side=side,
            margin=margin,
            unit=unit_of(gate, info),
            spread=spread,
            to_decide=least,
            to_pass=None if enough is None else max(enough, least),
            have=have,
        )


def _plan(
    info: Metric, spread: Spread, side: Side, best: float, margin: float, confidence: float
) -> tuple[Spread, int, int | None]:
    """The spread, fewest documents or items that could ever pass, and those for 80% power."""
    alpha, between = 1 - confidence, two_sided(confidence)
    value = best if spread.value is None else spread.value
    gap = best + margin - value if side == "max" else value - (best - margin)
    if info.rate:
        enough = rate_needed(value, margin, alpha, _POWER) if gap > 0 else None
        return spread, _unseen(margin, alpha), enough
    reach = reach_of(info, spread, side, between)
    least = 2
    if info.noise_stays:
        least = clusters_needed(reach, margin, between, power=0.5) or _NEVER
        # Right or wrong items without a change show no less than a share would.
        least = max(least, _unseen(margin, alpha) if _of_items(info) else 2)
    return spread, least, clusters_needed(reach, gap, between, _POWER) if gap > 0 else None


def _unseen(margin: float, alpha: float) -> int:
    """Fewest items after which none seen shows that fewer than ``margin`` of all are."""
    return 1 if margin >= 1 else math.ceil(math.log(alpha) / math.log1p(-margin))


def _of_items(metric: Metric) -> bool:
    return metric.records == "items" and metric.difference


def resolved(metric: str, have: int, confidence: float, spread: Spread | None = None) -> float:
    """The narrowest margin that ``have`` documents or items could decide; 0 where any can."""
    info = REGISTRY[metric]
    spread = spread or info.spread
    if spread is None or spread.relative:
        return 0.0
    unseen = -math.expm1(math.log(1 - confidence) / max(have, 1))
    if info.rate:
        return unseen
    side: Side = "min" if info.direction == "higher" else "max"
    found = reach_of(info, spread, side, two_sided(confidence))(have)
    return max(found, unseen) if _of_items(info) else found


def _loosest(gate: Gate, side: Side) -> Limit | None:
    limit: Limit | None = getattr(gate, side)
    looser: Limit | None = getattr(gate.unless, side) if gate.unless else None
    return looser or limit
