"""junit.xml: what blocks is red, what is undecided is never green, and the XML is always valid."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalharness.report import render_junit
from evalharness.report.junit import clean
from evalharness.spec.result import Result
from evalharness.version import __version__

from ..synthetic.policies import every_kind
from .conftest import INTERNALS


@pytest.fixture(scope="module")
def every(result: Callable[..., Result]) -> Result:
    """A run whose policy has a gate of every verdict and standing."""
    return result(rules=every_kind(), without=("timings", *INTERNALS))


def case_of(r: Result, name: str) -> ET.Element:
    """The test case of one gate."""
    found = ET.fromstring(render_junit(r)).find(f"testsuite/testcase[@name='{name}']")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ("pass", []),
        ("fail", ["failure"]),
        ("undecided", ["error"]),
        ("fail-warn", ["system-out"]),
        ("fail-info", ["system-out"]),
        ("undecided-warn", ["system-out"]),
        ("undecided-let", ["system-out"]),
        ("fail-waived", ["skipped", "system-out"]),
        ("pass-waived", []),
        ("missing", ["failure"]),
        ("waiver of pass", ["failure"]),
    ],
)
def test_a_gate_becomes_the_outcome_that_a_ci_shows(
    every: Result, gate: str, expected: list[str]
) -> None:
    """Failure, error, skipped or a note; a PASS alone is plain green."""
    names = [g.id + (" [metric=acc_norm, task=arc_easy]" if g.scope else "") for g in every.gates]
    name = next(n for n in names if n.split(" [")[0] == gate)
    assert [child.tag for child in case_of(every, name)] == expected


def test_an_anomalous_gate_is_an_error(result: Callable[..., Result]) -> None:
    """What cannot be trusted does not pass in silence."""
    case = case_of(result("ANOMALOUS"), "perplexity")
    assert [child.tag for child in case] == ["error"]


def test_a_failure_names_measured_limit_and_worst(result: Callable[..., Result]) -> None:
    """The CI's one line holds the evidence, the text below it the reason."""
    r = result("FAIL")
    failure = case_of(r, "perplexity").find("failure")
    assert failure is not None
    worst = r.gates[0].worst
    expected = f"FAIL: perplexity.ratio 1.081 [1.068, 1.094], limit ≤ 1.03; worst: {worst}"
    assert failure.get("message") == expected
    assert failure.text == r.gates[0].reason
    assert "outside the limit: at most 1.03" in r.gates[0].reason


def test_an_expired_waiver_fails_by_its_reason(every: Result) -> None:
    """It has no number to show."""
    failure = case_of(every, "waiver of pass").find("failure")
    assert failure is not None
    assert failure.get("message") == f"FAIL: {every.gates[-1].reason}"
    assert "expired on 2025-01-01" in every.gates[-1].reason


def test_a_waived_gate_is_skipped_with_its_reason(every: Result) -> None:
    """The waiver's reason is where a reader looks for it."""
    skipped = case_of(every, "fail-waived").find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "waived: known outlier"


def test_a_case_is_named_by_policy_gate_and_scope(every: Result) -> None:
    """Two gates of one id in different scopes stay two."""
    case = case_of(every, "undecided [metric=acc_norm, task=arc_easy]")
    assert case.get("classname") == "kinds"
    assert (case.get("file"), case.get("line")) == ("gates/default.yaml", "6")


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
    """Where no gate objects, a case of its own says why."""
    assert counts(render_junit(bare)) == ("1", "0", "1", "0")
    # No policy decides so: only a result.json that something else has written.
    for gates in ([], [g for g in result("FAIL").gates if g.verdict == "PASS"]):
        r = result("FAIL").model_copy(update={"gates": gates})
        assert counts(render_junit(r))[:2] == (str(len(gates) + 1), "1")
        failure = case_of(r, "verdict").find("failure")
        assert failure is not None
        assert failure.get("message") == r.headline


def test_anomalies_are_errors_where_the_run_is_anomalous(result: Callable[..., Result]) -> None:
    """NaN logits do not hide behind passing gates: the weights are counted all the same."""
    rules = "version: 1\ngates: [{metric: memory.weights.ratio, max: 1}]\n"
    r = result("ANOMALOUS", rules=rules)
    assert [g.verdict for g in r.gates] == ["PASS"]
    assert counts(render_junit(r)) == ("2", "0", "1", "0")


def test_the_properties_hold_verdict_and_versions(result: Callable[..., Result]) -> None:
    """What ran is in the file that the CI keeps."""
    root = ET.fromstring(render_junit(result("FAIL")))
    found = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert found["verdict"] == "FAIL"
    assert found["evalharness_version"] == __version__
    assert found["environment.torch"] == "2.9.0"


@settings(max_examples=20, deadline=None)
@given(text=st.text(min_size=1))
def test_any_string_gives_valid_xml(any_text: Callable[..., Result], text: str) -> None:
    """Control characters, non-characters and markup cannot break the file."""
    r = any_text(text)
    root = ET.fromstring(render_junit(r))
    assert root.tag == "testsuites"
    assert len(root.findall("testsuite/testcase")) == len(r.gates) + len(r.anomalies) == 7


@pytest.mark.parametrize("char", ["\x00", "\x0b", "\ufffe", "\uffff", "\ud800", "\x1b"])
def test_what_xml_cannot_hold_is_spelled_out(char: str) -> None:
    """The reader sees that something was there."""
    cleaned = clean(f"a{char}b")
    assert char not in cleaned
    assert ET.fromstring(f"<x>{cleaned}</x>").text == cleaned
    assert cleaned != "ab"
