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
    with pytest.raises(InputError, match="d1 against none"):
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
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "baseline_version": 2}))
    with pytest.raises(InputError) as error:
        load_baseline(stored)
    assert str(error.value) == (
        f"{stored}: is of version 2, and this evalharness reads up to 1. Use the evalharness that "
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
