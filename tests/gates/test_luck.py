"""What passed on luck: few data without a change, and metrics that hide what they measure."""

from __future__ import annotations

import pytest

from evalharness.errors import InputError
from evalharness.gates import decide
from evalharness.testing.records import estimates, synthetic
from tests.gates.fakes import estimate, gate, only


@pytest.mark.parametrize("documents", [3, 6, 12])
def test_few_documents_without_a_flip_do_not_show_agreement(documents: int) -> None:
    """Of 3 that all agree, one token in 10,000 may still differ; of a whole half it is plain."""
    same = estimates(synthetic(documents, damage=0.0))
    found = [
        decide(gate(f"metric: top1.agreement, min: {least}"), same).gates[0]
        for least in (0.9999, 0.3)
    ]
    assert [f.verdict for f in found] == ["INCONCLUSIVE", "PASS"]
    assert found[0].observed == 1.0


@pytest.mark.parametrize("place", ["metric: ece.shift, max: 0.9", "metric: kl.max, max: 9"])
def test_what_is_shown_only_is_refused_as_a_gate_and_as_a_condition(place: str) -> None:
    """And what to gate instead is named."""
    instead = "ce2.shift or calibration.score.shift" if "ece" in place else "kl.p999"
    with pytest.raises(InputError, match=f"never gated.*Gate {instead}"):
        gate(place)
    with pytest.raises(InputError, match=f"never gated.*Gate {instead}"):
        gate(f"metric: nll.shift, max: 0.01, unless: {{max: 0.02, any: [{{{place}}}]}}")


def test_the_ways_to_pass_share_the_chance_to_be_wrong() -> None:
    """A limit that 95% shows, and 97.5% does not, is not met by a gate with a second way."""
    one = estimate("nll.shift", 0.0, -0.0095, 0.0095, confidence=0.9)
    other = estimate("kl.mean", 1.0, 0.9, 1.1, confidence=0.9)
    assert only("metric: nll.shift, max: 0.01", one).verdict == "PASS"
    unless = "unless: {max: 0.011, any: [{metric: kl.mean, max: 0.5}]}"
    assert only(f"metric: nll.shift, max: 0.01, {unless}", one, other).verdict == "INCONCLUSIVE"


def test_a_way_that_is_counted_takes_no_share() -> None:
    """Bytes are no test."""
    one = estimate("nll.shift", 0.0, -0.0095, 0.0095, confidence=0.9)
    size = estimate("memory.weights.ratio", 0.9, 0.9, 0.9)
    unless = "unless: {max: 0.011, any: [{metric: memory.weights.ratio, max: 50%}]}"
    assert only(f"metric: nll.shift, max: 0.01, {unless}", one, size).verdict == "PASS"
