"""GitHub annotations: one command a line, escaped as the runner expects."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalharness.report import github_annotations
from evalharness.report.github import command
from evalharness.spec.result import Result


def levels(result: Result) -> list[str]:
    """The levels of the annotations, in order."""
    return [line.split()[0].strip(":") for line in github_annotations(result)]


def test_a_blocking_failure_is_an_error_on_the_line_of_its_gate(
    result: Callable[..., Result],
) -> None:
    """The policy file is where the reader can act."""
    first = github_annotations(result("FAIL"))[0]
    assert first.startswith(
        "::error file=gates/default.yaml,line=4,title=FAIL%3A perplexity::"
        "perplexity.ratio is 1.081 [1.068, 1.094]; outside the limit: at most 1.03. Worst: "
    )
    assert first.count("1.081") == 1


def test_what_does_not_block_only_warns(result: Callable[..., Result]) -> None:
    """A waived FAIL and a warning gate do not turn a pull request red."""
    # The waived gate, the one that only warns, and the run's two other warnings.
    assert levels(result("FAIL")) == ["error", *["warning"] * 4]
    assert levels(result("PASS")) == ["warning"] * 4
    assert levels(result("INCONCLUSIVE"))[0] == "error"


def test_an_informative_gate_is_a_notice(result: Callable[..., Result]) -> None:
    """Severity ``info`` does not even warn."""
    rules = "on_incomplete: warn\ngates: [{id: a, metric: kl.mean, max: 1e-3, severity: info}]\n"
    assert levels(result(rules=rules)) == ["notice", "warning"]


def test_a_run_that_does_not_exit_0_always_has_an_error(bare: Result) -> None:
    """Nothing measured, nothing passed."""
    assert levels(bare)[0] == "error"
    # No policy decides so: only a result.json that something else has written.
    strange = bare.model_copy(update={"gates": [], "warnings": []})
    assert github_annotations(strange) == [
        f"::error title=evalharness INCONCLUSIVE::{bare.headline}"
    ]


def test_anomalies_are_errors_where_the_run_is_anomalous(result: Callable[..., Result]) -> None:
    """They are why the run exits other than 0."""
    assert "::error title=anomaly%3A nonfinite logits::smol-7b-instruct-int4: NaN" in "\n".join(
        github_annotations(result("ANOMALOUS"))
    )


def test_a_clean_pass_says_nothing(result: Callable[..., Result]) -> None:
    """No annotation without a reason."""
    rules = "version: 1\ngates: [{metric: kl.mean, max: 1, min_n: 2}]\n"
    assert github_annotations(result(rules=rules, warnings=False)) == []


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("100%", "100%25"),
        ("a\nb", "a%0Ab"),
        ("a\rb", "a⟨CR⟩b"),
        ("a:b,c", "a:b,c"),
        ("%0A", "%250A"),
    ],
)
def test_a_message_escapes_percent_and_newlines(message: str, expected: str) -> None:
    """As the runner decodes them; colons and commas stay."""
    assert command("error", message, title="t") == f"::error title=t::{expected}"


def test_a_property_escapes_colons_and_commas_too() -> None:
    """Or a file name would end its own property."""
    line = command("error", "m", title="a:b,c%", file="x,y:z.yaml", line=3)
    assert line == "::error file=x%2Cy%3Az.yaml,line=3,title=a%3Ab%2Cc%25::m"


@settings(max_examples=20, deadline=None)
@given(text=st.one_of(st.text(min_size=1), st.text("%:,\r\n=0A2C error", min_size=1)))
def test_no_string_makes_a_second_command(any_text: Callable[..., Result], text: str) -> None:
    """One line, one command, and its properties are ours."""
    for line in github_annotations(any_text(text)):
        assert len(line.splitlines()) == 1
        found = re.match(r"::(error|warning|notice) ([^:]*)::", line)
        assert found is not None
        keys = [pair.split("=")[0] for pair in found[2].split(",")]
        assert keys in (["file", "line", "title"], ["title"])
