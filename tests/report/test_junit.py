"""junit.xml: what blocks is red, what is undecided is never green, and the XML is always valid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalharness.report import render_junit
from evalharness.report.junit import clean
from evalharness.spec.result import GateResult, Result


def gate(verdict: str, **more: Any) -> GateResult:
    """A gate of the given verdict."""
    fields = {"metric": "kl.mean", "observed": 0.1, "low": 0.09, "high": 0.11, "threshold": 0.05}
    return GateResult(id="kl", verdict=verdict, **{**fields, **more})  # type: ignore[arg-type]


def only_case(result: Callable[..., Result], g: GateResult, **more: Any) -> ET.Element:
    """The test case of the one gate of a result."""
    r = result("PASS", gates=[g], blocks=0, **{"exit_code": 1, **more})
    found = ET.fromstring(render_junit(r)).find("testsuite/testcase")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("verdict", "more", "expected"),
    [
        ("PASS", {}, []),
        ("FAIL", {}, ["failure"]),
        ("INCONCLUSIVE", {}, ["error"]),
        ("ANOMALOUS", {}, ["error"]),
        ("FAIL", {"blocking": False, "severity": "warn"}, ["system-out"]),
        ("INCONCLUSIVE", {"blocking": False}, ["system-out"]),
        ("FAIL", {"waiver": "known"}, ["skipped", "system-out"]),
        ("PASS", {"waiver": "known"}, []),
    ],
)
def test_a_gate_becomes_the_outcome_that_a_ci_shows(
    result: Callable[..., Result], verdict: str, more: dict[str, Any], expected: list[str]
) -> None:
    """Failure, error, skipped or a note; a PASS alone is plain green."""
    assert [child.tag for child in only_case(result, gate(verdict, **more))] == expected


def test_a_failure_names_measured_limit_and_worst(result: Callable[..., Result]) -> None:
    """The CI's one line holds the evidence."""
    case = only_case(result, gate("FAIL", worst="corpus wiki", unit="nats", reason="Too far"))
    failure = case.find("failure")
    assert failure is not None
    expected = "FAIL: kl.mean 0.100 [0.090, 0.110] nats, limit ≤ 0.05; worst: corpus wiki"
    assert failure.get("message") == expected
    assert failure.text == f"{expected}\nToo far."


def test_a_waived_gate_is_skipped_with_its_reason(result: Callable[..., Result]) -> None:
    """The waiver's reason is where a reader looks for it."""
    skipped = only_case(result, gate("FAIL", waiver="known outlier")).find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "waived: known outlier"


def test_a_case_is_named_by_policy_gate_and_scope(result: Callable[..., Result]) -> None:
    """Two gates of one id in different scopes stay two."""
    g = gate("PASS", scope={"task": "arc", "metric": "acc"}, file="gates/default.yaml", line=3)
    case = only_case(result, g)
    assert (case.get("classname"), case.get("name")) == ("default", "kl [metric=acc, task=arc]")
    assert (case.get("file"), case.get("line")) == ("gates/default.yaml", "3")


def counts(xml: str) -> tuple[str | None, ...]:
    """Tests, failures, errors, skipped of the suite."""
    suite = ET.fromstring(xml).find("testsuite")
    assert suite is not None
    return tuple(suite.get(k) for k in ("tests", "failures", "errors", "skipped"))


def test_the_counts_are_those_of_the_cases(result: Callable[..., Result]) -> None:
    """Six gates: one blocks, one is waived, one only warns."""
    assert counts(render_junit(result("FAIL"))) == ("6", "1", "0", "1")
    assert counts(render_junit(result("PASS"))) == ("6", "0", "0", "1")
    assert counts(render_junit(result("INCONCLUSIVE"))) == ("6", "0", "1", "1")


def test_a_run_that_does_not_exit_0_is_never_green(
    result: Callable[..., Result], bare: Result
) -> None:
    """No gate, or only passing ones: a case of its own says why."""
    xml = render_junit(bare)
    assert counts(xml) == ("1", "0", "1", "0")
    error = ET.fromstring(xml).find("testsuite/testcase/error")
    assert error is not None
    assert error.get("message") == "Nothing was measured."
    assert counts(render_junit(result("FAIL", gates=[gate("PASS")])))[:2] == ("2", "1")


def test_anomalies_are_errors_where_the_run_is_anomalous(result: Callable[..., Result]) -> None:
    """NaN logits do not hide behind passing gates."""
    r = result("ANOMALOUS", gates=[gate("PASS")])
    assert counts(render_junit(r)) == ("2", "0", "1", "0")


def test_the_properties_hold_verdict_and_versions(result: Callable[..., Result]) -> None:
    """What ran is in the file that the CI keeps."""
    root = ET.fromstring(render_junit(result("FAIL")))
    found = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert found["verdict"] == "FAIL"
    assert found["evalharness_version"] == "0.1.0"
    assert found["environment.torch"] == "2.9.0"


@settings(max_examples=20, deadline=None)
@given(text=st.text(min_size=1))
def test_any_string_gives_valid_xml(hostile: Callable[..., Result], text: str) -> None:
    """Control characters, non-characters and markup cannot break the file."""
    root = ET.fromstring(render_junit(hostile(text, blocks=0)))
    assert root.tag == "testsuites"
    assert len(root.findall("testsuite/testcase")) == 7


@pytest.mark.parametrize("char", ["\x00", "\x0b", "\ufffe", "\uffff", "\ud800", "\x1b"])
def test_what_xml_cannot_hold_is_spelled_out(char: str) -> None:
    """The reader sees that something was there."""
    cleaned = clean(f"a{char}b")
    assert char not in cleaned
    assert ET.fromstring(f"<x>{cleaned}</x>").text == cleaned
    assert cleaned != "ab"
