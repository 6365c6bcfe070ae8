"""A verdict in words."""

from __future__ import annotations

import pytest

from evalharness.gates import decide, explain
from evalharness.report.gate_rows import gate_row
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import Anomaly
from tests.gates.fakes import FakeEstimates, decided, estimate, gate, policy


def explained(rule: str, *estimates: Estimate, anomalies: tuple[Anomaly, ...] = ()) -> str:
    policy = gate(rule)
    decision = decide(policy, FakeEstimates(*estimates), anomalies=anomalies)
    return explain(decision.gates[0], policy)


def test_a_failure_is_explained_from_rule_to_next_step() -> None:
    """What was asked, what was measured, why that is a FAIL, and where to look."""
    one = estimate("kl.mean", 0.08, 0.07, 0.09, worst="token at wiki/7 position 12 (3.1)")
    assert explained("metric: kl.mean, max: 0.05", one) == (
        "kl.mean: FAIL (error; blocking)\n"
        "\n"
        "Asked:     kl.mean at most 0.05 nats/token (gates/p.yaml:2)\n"
        "Measured:  0.08 nats/token, between 0.07 and 0.09: each end is a bound at 0.95 "
        "confidence\n"
        "At least:  20 documents or items, kl.mean's own minimum\n"
        "Verdict:   the whole interval is above the limit: even its near end (0.07) breaks it.\n"
        "Worst:     token at wiki/7 position 12 (3.1)\n"
        "In full:   kl.mean is 0.08 [0.07, 0.09]; outside the limit: at most 0.05. Worst: token at "
        "wiki/7 position 12 (3.1).\n"
        "Next:      look at the worst offender; `evalharness show RUN` has the rest."
    )


@pytest.mark.parametrize(
    ("rule", "one", "words"),
    [
        ("", estimate("kl.mean", 0.02, 0.01, 0.03), "even its far end (0.03) keeps it"),
        ("", estimate("kl.mean", 0.02, 0.01, 0.09), "the data do not say which"),
        ("", estimate("kl.mean", 0.02, reason="x", clusters=9), "nobody knows how far chance"),
        ("", estimate("kl.mean", None, reason="NaN"), "is never a PASS"),
        ("", estimate("kl.mean", 0.0, 0.0, 0.0), "the value alone decides, and it is inside"),
        (", decide: point", estimate("kl.mean", 0.9, 0, 1), "alone decides, and it is outside"),
        (", decide: not-worse", estimate("kl.mean", 0.02, 0, 0.1), "not-worse asks that"),
    ],
)
def test_each_way_to_a_verdict_has_its_words(rule: str, one: Estimate, words: str) -> None:
    """No verdict is left at its name."""
    assert words in explained(f"metric: kl.mean, max: 0.05{rule}", one)


def test_an_anomaly_is_explained_as_no_knowledge() -> None:
    """Not as a failure of the candidate."""
    text = explained(
        "metric: kl.mean, max: 1",
        estimate("kl.mean", 0.1, 0.1, 0.1),
        anomalies=(Anomaly(kind="nan", message="NaN logits"),),
    )
    assert "ANOMALOUS (error; blocking)" in text
    assert "nothing is decided on it" in text
    assert "Anomaly: NaN logits." in text


def test_an_interval_beyond_the_limit_that_is_no_fail_is_explained_by_the_correction() -> None:
    """It does not say that the truth may lie on either side, where the report draws it beyond."""
    rule = policy("gates: [{metric: kl.mean, max: 0.1}]")
    failing = decided(rule, estimate("kl.mean", 0.2, 0.15, 0.25)).gates[0]
    withdrawn = failing.model_copy(update={"verdict": "INCONCLUSIVE"})
    text = explain(withdrawn, rule)
    assert "by itself the interval is above the limit" in text
    assert "(Holm)" in text
    assert "either side" not in text


def test_what_blocks_is_said_as_the_report_says_it() -> None:
    """A gate that passes blocks as well, where it would not."""
    rule = policy("gates: [{metric: kl.mean, max: 1}, {metric: kl.p99, max: 1, severity: warn}]")
    found = decided(rule, estimate("kl.mean", 0.2, 0.1, 0.3), estimate("kl.p99", 2, 1.5, 2.5))
    said = [explain(g, rule).splitlines()[0] for g in found.gates]
    standing = [row.standing for row in map(gate_row, found.gates)]
    assert [s.split(" (")[0] in line for s, line in zip(standing, said, strict=True)] == [True] * 2
    assert said[0].endswith("(error; blocking)")
