"""Resolvable or refused: how many documents or items a policy needs, before a model is loaded.

A limit is resolvable when, were the candidate perfect (a shift of 0, no flip), the interval that
so many documents give would lie inside it. A suite too small for that can only ever answer
INCONCLUSIVE, so it is refused, with the number that it takes.

Means: the least G with t(1−α; G−1)·σ/√G ≤ margin; with power ((z_α + z_β)·σ/margin)². Binary task
scores: σ² = f, the share of items that flip. Rates: with no event in n items the Clopper–Pearson
end is 1 − α^(1/n), and binary task scores take as many items at the least. Divergences and layer
errors have no such bound: their spread shrinks with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from scipy.special import ndtri, stdtrit

from evalharness.gates.judgement import two_sided
from evalharness.gates.limits import Side, fewest, whose_fewest
from evalharness.gates.scopes import chosen
from evalharness.gates.sizes import Sizes, effective, held, unit_of
from evalharness.metrics import REGISTRY, Estimates, Metric, Spread
from evalharness.spec.limit import Limit
from evalharness.spec.policy import Gate, Policy
from evalharness.stats.planning import documents_needed


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
    spreads: Mapping[str, Spread] | None = None,
    sizes: Sizes | None = None,
) -> list[Need]:
    """What each gate of ``policy`` needs; gates without a planning bound are left out."""
    return [need for gate in policy.gates for need in _needs(gate, policy, spreads or {}, sizes)]


def check_resolvable(
    policy: Policy,
    sizes: Sizes,
    spreads: Mapping[str, Spread] | None = None,
) -> None:
    """Raise `InputError` for the first gate that the suite could never decide."""
    for gate in policy.gates:
        have = held(gate, REGISTRY[gate.metric], sizes)
        unit = unit_of(gate, REGISTRY[gate.metric])
        if have is not None and have < fewest(gate) and not REGISTRY[gate.metric].deterministic:
            given = gate.min_n is not None
            if gate.severity == "info" and not given:
                continue
            raise gate.error(
                f"needs {fewest(gate):,} {unit}, {whose_fewest(gate)}, and the suite has {have:,}",
                ("min_n",) if given else (),
                f"Raise the suite's number of {unit}, or {'lower' if given else 'give a lower'} "
                "min_n.",
            )
    for need in needs(policy, spreads, sizes):
        found = policy.gate(need.gate)
        assert found is not None
        enough = need.have is None or need.have >= need.to_decide
        if enough or found.severity == "info":
            continue
        reach = resolved(need.metric, need.have or 0, policy.confidence, need.spread)
        limit = getattr(found, need.side)
        raise found.error(
            f"{need.have:,} {need.unit} can never decide a {need.side} of {limit} at "
            f"{policy.confidence:.4g} confidence: even for a perfect candidate it takes "
            f"{need.to_decide:,} (planning spread {need.spread.sd:.3g}, {need.spread.source})",
            (need.side,),
            f"Measure at least {need.to_decide:,} {need.unit}, or give a limit at least "
            f"{reach:.2g} from the best possible value. Where an earlier run of such a pair varied "
            "less, `--plan-from RUN` takes its spread.",
        )


def spreads_from(policy: Policy, estimates: Estimates, source: str) -> dict[str, Spread]:
    """Planning spreads of the policy's metrics from an earlier run's intervals."""
    found: dict[str, Spread] = {}
    confidence = two_sided(policy.confidence)
    for gate in policy.gates:
        for scope in chosen(estimates, gate.metric, gate.scope):
            one = estimates.estimate(gate.metric, scope, confidence)
            if one.value is None or one.low is None or one.high is None or one.clusters < 2:
                continue
            # Half the interval over its t, and not `se`, which may be on a log scale.
            half = (one.high - one.low) / 2
            sd = half / float(stdtrit(one.clusters - 1, policy.confidence))
            spread = Spread(sd * math.sqrt(one.clusters), one.value, source)
            if gate.metric not in found or spread.sd > found[gate.metric].sd:
                found[gate.metric] = spread
    return found


def _needs(
    gate: Gate,
    policy: Policy,
    spreads: Mapping[str, Spread],
    sizes: Sizes | None,
) -> Iterator[Need]:
    info = REGISTRY[gate.metric]
    spread = spreads.get(gate.metric, info.spread)
    best = info.ideal
    # Only an interval that must fit inside the limit needs a size; a baseline is not known yet.
    if info.deterministic or gate.decide != "confident" or gate.relative_to == "baseline":
        return
    if spread is None or best is None or not info.noise_stays:
        return
    have = None if sizes is None else effective(gate, info, sizes, 1 - policy.confidence)
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
        alpha, between = 1 - policy.confidence, two_sided(policy.confidence)
        least = _least(info, margin, spread.sd, alpha)
        limit_at = best + margin if side == "max" else best - margin
        value = best if spread.value is None else spread.value
        beyond = value >= limit_at if side == "max" else value <= limit_at
        enough = None if beyond else documents_needed(value, spread.sd, limit_at, between)
        # min_n counts what there is, and `have` what that is worth.
        whole = None if sizes is None else held(gate, info, sizes)
        share = have / whole if have and whole else 1.0
        least = max(least, math.ceil(fewest(gate) * share))
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


def _least(metric: Metric, margin: float, sd: float, alpha: float) -> int:
    """Fewest documents or items whose interval, around the best value, is inside ``margin``."""
    unseen = 1 if margin >= 1 else math.ceil(math.log(alpha) / math.log1p(-margin))
    if metric.rate:
        return unseen
    count = max(2, math.ceil((float(ndtri(1 - alpha)) * sd / margin) ** 2))
    while float(stdtrit(count - 1, 1 - alpha)) * sd / math.sqrt(count) > margin:
        count += 1  # t is wider than z by a little: a few steps at most
    # Right or wrong items without a change show no less than a share would.
    return max(count, unseen) if _of_items(metric) else count


def _of_items(metric: Metric) -> bool:
    return metric.records == "items" and metric.difference


def resolved(metric: str, have: int, confidence: float, spread: Spread | None = None) -> float:
    """The narrowest margin that ``have`` documents or items could decide; 0 where any can."""
    spread = spread or REGISTRY[metric].spread
    if spread is None:
        return 0.0
    unseen = -math.expm1(math.log(1 - confidence) / max(have, 1))
    if REGISTRY[metric].rate:
        return unseen
    if have < 2:
        return math.inf
    found = float(stdtrit(have - 1, confidence)) * spread.sd / math.sqrt(have)
    return max(found, unseen) if _of_items(REGISTRY[metric]) else found


def _loosest(gate: Gate, side: Side) -> Limit | None:
    limit: Limit | None = getattr(gate, side)
    looser: Limit | None = getattr(gate.unless, side) if gate.unless else None
    return looser or limit
