"""Policies and verdicts: from a run's estimates to PASS, FAIL, INCONCLUSIVE or ANOMALOUS."""

from evalharness.gates.anomalies import doubts, find_anomalies
from evalharness.gates.baseline import (
    StoredBaseline,
    baseline_of,
    load_baseline,
    save_baseline,
)
from evalharness.gates.explanation import explain
from evalharness.gates.family import check_family, stricter
from evalharness.gates.fresh_processes import check_processes
from evalharness.gates.limits import fewest, refuse_noise
from evalharness.gates.overall import Decision
from evalharness.gates.policy_check import check_layers, check_policy, load_policy, policy_from
from evalharness.gates.resolvable import (
    Need,
    check_resolvable,
    needs,
    resolved,
    spreads_from,
)
from evalharness.gates.sizes import Sizes
from evalharness.gates.stored_outcomes import collect
from evalharness.gates.verdicts import decide, expired_waivers, result_ids
from evalharness.gates.waivers import waiver_id
from evalharness.spec.policy import Policy

__all__ = [
    "Decision",
    "Need",
    "Policy",
    "Sizes",
    "StoredBaseline",
    "baseline_of",
    "check_family",
    "check_layers",
    "check_policy",
    "check_processes",
    "check_resolvable",
    "collect",
    "decide",
    "doubts",
    "expired_waivers",
    "explain",
    "fewest",
    "find_anomalies",
    "load_baseline",
    "load_policy",
    "needs",
    "policy_from",
    "refuse_noise",
    "resolved",
    "result_ids",
    "save_baseline",
    "spreads_from",
    "stricter",
    "waiver_id",
]
