"""Stored runs that gates may be relative to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalharness.errors import InputError
from evalharness.gates import Decision, decide, load_baseline, save_baseline
from evalharness.spec.estimate import Estimate
from tests.gates.fakes import FakeEstimates, estimate, gate

IDENTITY = {"data": "d1", "tokenizer": "t1", "metrics": "m1"}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A baseline in which kl.mean is 0.04."""
    path = tmp_path / "main.json"
    save_baseline(path, "runs/main", IDENTITY, [estimate("kl.mean", 0.04, 0.03, 0.05)])
    return path


def ratchet(
    stored: Path, rule: str, one: Estimate, identity: dict[str, str] | None = None
) -> Decision:
    return decide(
        gate(f"metric: kl.mean, relative_to: baseline, {rule}"),
        FakeEstimates(one),
        baseline=load_baseline(stored),
        identity=IDENTITY if identity is None else identity,
    )


@pytest.mark.parametrize(
    ("rule", "threshold"), [("max: 0.01", 0.05), ("max: 25%", 0.05), ("max: -10%", 0.036)]
)
def test_a_limit_is_added_to_the_stored_value(stored: Path, rule: str, threshold: float) -> None:
    """As it is, or as a percentage of that value."""
    (result,) = ratchet(stored, rule, estimate("kl.mean", 0.02, 0.01, 0.03)).gates
    assert result.verdict == "PASS"
    assert result.threshold == pytest.approx(threshold)


def test_the_same_candidate_measured_again_passes_a_ratchet(stored: Path) -> None:
    """With decide: not-worse; the interval always holds a limit this close."""
    again = estimate("kl.mean", 0.04, 0.03, 0.05)
    assert ratchet(stored, "max: 5%, decide: not-worse", again).verdict == "PASS"
    assert ratchet(stored, "max: 5%", again).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("data", "other data (scored tokens, their windows, prompts or targets differ)"),
        ("tokenizer", "another tokenizer"),
        ("metrics", "another version of the metrics"),
    ],
)
def test_a_baseline_that_is_not_comparable_is_refused(stored: Path, key: str, what: str) -> None:
    """By hashes that were computed, not typed in."""
    with pytest.raises(InputError) as error:
        ratchet(stored, "max: 0.01", estimate("kl.mean", 0.0, 0.0, 0.0), IDENTITY | {key: "x9"})
    assert str(error.value) == (
        f"gates/p.yaml:2: gates[0].relative_to: the baseline {stored} is of {what}: "
        f"{IDENTITY[key]} against x9. Save a new one from a run with this suite: evalharness "
        "baseline save RUN."
    )


def test_a_run_that_does_not_say_what_it_is_of_is_not_comparable(stored: Path) -> None:
    """Two unknowns are not equal."""
    with pytest.raises(InputError, match="t1 against none"):
        ratchet(stored, "max: 0.01", estimate("kl.mean", 0.0, 0.0, 0.0), {})


def test_a_relative_gate_without_a_baseline_is_refused() -> None:
    """It could never fail."""
    with pytest.raises(InputError) as error:
        decide(
            gate("metric: kl.mean, relative_to: baseline, max: 0.01"),
            FakeEstimates(estimate("kl.mean", 0.0, 0.0, 0.0)),
        )
    assert str(error.value) == (
        "gates/p.yaml:2: gates[0].relative_to: relative to a baseline, and none is given. Give "
        "`baseline: FILE` in the policy; `evalharness baseline save RUN` makes one."
    )


def test_a_metric_that_the_baseline_lacks_is_refused(stored: Path) -> None:
    """Rather than compared with nothing."""
    one = estimate("kl.mean", 0.0, 0.0, 0.0, scope={"corpus": "new"})
    with pytest.raises(InputError, match=r"has no kl\.mean for \{'corpus': 'new'\}"):
        ratchet(stored, "max: 0.01", one)


def test_a_baseline_of_a_newer_version_is_refused(stored: Path) -> None:
    """Its meaning may have changed."""
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "baseline_version": 3}))
    with pytest.raises(InputError) as error:
        load_baseline(stored)
    assert str(error.value) == (
        f"{stored}: is of version 3, and this evalharness reads up to 2. Use the evalharness that "
        "wrote it, or a newer one."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not a baseline: : Input should be a valid dictionary"),
        ("{}", "is not a baseline: baseline_version: Field required"),
        ("{", "cannot be read as a baseline"),
    ],
)
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """With what is wrong in it."""
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_baseline(path)


def test_a_baseline_is_saved_with_every_hash(tmp_path: Path) -> None:
    """One that lacks any could never be compared."""
    with pytest.raises(ValueError, match="a baseline needs the hashes of: tokenizer, metrics"):
        save_baseline(tmp_path / "x.json", "runs/a", {"data": "d"}, [])
    assert not list(tmp_path.iterdir())


def test_a_baseline_that_was_edited_is_refused(stored: Path) -> None:
    """A limit that ratchets is worth what its baseline is."""
    text = stored.read_text()
    stored.write_text(text.replace("0.04", "0.4", 1))
    assert stored.read_text() != text
    with pytest.raises(InputError, match=r"is not as it was saved: .* save it again from its run"):
        load_baseline(stored)


def test_a_baseline_of_before_is_judged_by_its_intervals(stored: Path) -> None:
    """Those of version 1 keep no documents, and no hash."""
    data = json.loads(stored.read_text())
    del data["outcomes"], data["digest"]
    stored.write_text(json.dumps(data | {"baseline_version": 1}))
    (result,) = ratchet(stored, "max: 0.012", estimate("kl.mean", 0.04, 0.03, 0.05)).gates
    assert result.verdict == "INCONCLUSIVE"  # 0.01 of either side: 0.014 together
    assert result.high == pytest.approx(0.04 + 0.01 * 2**0.5)
    assert "not paired: both errors count" in result.reason
    (result,) = ratchet(stored, "max: 0.015", estimate("kl.mean", 0.04, 0.03, 0.05)).gates
    assert result.verdict == "PASS"


@pytest.mark.parametrize(("how", "verdict"), [("confident", "INCONCLUSIVE"), ("point", "PASS")])
def test_a_stored_value_without_an_interval_decides_nothing(
    tmp_path: Path, how: str, verdict: str
) -> None:
    """Unless the policy asks for the bare values."""
    path = tmp_path / "old.json"
    save_baseline(path, "runs/main", IDENTITY, [estimate("kl.mean", 0.04)])
    rule = f"max: 0.01, decide: {how}"
    (result,) = ratchet(path, rule, estimate("kl.mean", 0.04, 0.03, 0.05)).gates
    assert (result.verdict, result.threshold) == (verdict, pytest.approx(0.05))
    if how == "confident":
        assert "save it again: evalharness baseline save RUN" in result.reason


def test_a_count_is_compared_with_the_stored_count(tmp_path: Path) -> None:
    """Bits are counted: neither has an error, and other documents change nothing."""
    path = tmp_path / "bits.json"
    save_baseline(path, "runs/main", IDENTITY, [estimate("weights.bits_per_weight", 4.5)])
    for value, verdict in ((4.5, "PASS"), (4.6, "FAIL")):
        decision = decide(
            gate("metric: weights.bits_per_weight, max: 0, relative_to: baseline"),
            FakeEstimates(estimate("weights.bits_per_weight", value, clusters=1)),
            baseline=load_baseline(path),
            identity=IDENTITY | {"data": "x9"},
        )
        assert decision.gates[0].verdict == verdict


def test_a_lower_bound_is_no_baseline(tmp_path: Path) -> None:
    """The whole, measured later, is above it and would look worse than it is."""
    bound = estimate("kl.mean", 0.04, 0.03, 0.05).model_copy(update={"at_least": True})
    save_baseline(tmp_path / "b.json", "runs/server", IDENTITY, [bound])
    assert load_baseline(tmp_path / "b.json").estimate("kl.mean", {}) is None
    with pytest.raises(InputError, match=r"has no kl.mean .* from a run that measured it"):
        ratchet(tmp_path / "b.json", "max: 5%", estimate("kl.mean", 0.05))
