"""Gates as pytest items, through pytester, on runs made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalharness.spec.result import Anomaly
from tests.pytest_plugin.fake_api import POLICY, FakeApi, run

pytest_plugins = ["pytester"]


def test_each_gate_is_an_item(gates: pytest.Pytester) -> None:
    """And each match of an `each` gate, by its own name."""
    result = run(gates, "p.yaml", "--evalharness-run", "good", "-v")
    result.stdout.fnmatch_lines(
        [
            "p.yaml::kl.mean PASSED*",
            "p.yaml::top1.agreement PASSED*",
            "p.yaml::block[[]layer=model.layers.0] PASSED*",
            "p.yaml::block[[]layer=model.layers.1] PASSED*",
            "p.yaml::the run itself PASSED*",
        ]
    )
    result.assert_outcomes(passed=5)
    assert result.ret == 0


def test_a_folder_is_searched_for_policies(gates: pytest.Pytester) -> None:
    """Ordinary YAML is left alone."""
    run(gates, "--evalharness-run", "good").assert_outcomes(passed=5)


def test_a_failed_gate_shows_what_was_measured_and_no_traceback(gates: pytest.Pytester) -> None:
    """The rule's line is where to go."""
    result = run(gates, "p.yaml", "--evalharness-run", "bad")
    result.stdout.fnmatch_lines(
        [
            "FAIL  kl.mean: 0.08 [[]0.07, 0.09] nats/token, limit: max 0.05",
            "  kl.mean is 0.08 [[]0.07, 0.09]; outside the limit: at most 0.05. Worst: token at "
            "wiki/7.",
            "  *p.yaml:4",
            "FAILED p.yaml::kl.mean - FAIL  kl.mean: 0.08*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*GateError*:*line*")
    result.assert_outcomes(passed=4, failed=1)
    assert result.ret == 1


def test_items_can_be_selected_and_stop_at_the_first_failure(gates: pytest.Pytester) -> None:
    """-k and -x, as for any test."""
    run(gates, "--evalharness-run", "bad", "-k", "top1").assert_outcomes(passed=2, deselected=3)
    run(gates, "--evalharness-run", "bad", "-x").assert_outcomes(failed=1)
    node = "p.yaml::block[layer=model.layers.1]"
    run(gates, "--evalharness-run", "bad", node).assert_outcomes(passed=2)


def test_junit_has_the_numbers(gates: pytest.Pytester) -> None:
    """As properties of each test case."""
    run(gates, "p.yaml", "--evalharness-run", "bad", "--junitxml=j.xml")
    text = (gates.path / "j.xml").read_text()
    assert 'name="verdict" value="FAIL"' in text
    assert 'name="observed" value="0.08"' in text
    assert 'name="threshold" value="0.05"' in text
    assert 'tests="5"' in text


def test_what_does_not_block_warns(gates: pytest.Pytester) -> None:
    """A pytest warning, and never a silent green."""
    (gates.path / "p.yaml").write_text(
        "gates:\n  - {metric: kl.mean, max: 0.05, severity: warn}\n"
        "  - {metric: kl.p99, max: 1, severity: info}\n"
        "  - {metric: top1.agreement, min: 95%, on_inconclusive: warn}\n"
    )
    result = run(gates, "--evalharness-run", "bad")
    result.assert_outcomes(passed=4, warnings=3)
    result.stdout.fnmatch_lines(
        [
            "*p.yaml:2: GateWarning: kl.mean: FAIL (warn). kl.mean is 0.08*",
            "*GateWarning: kl.p99: FAIL (info). kl.p99 was not measured*",
            "*GateWarning: top1.agreement: INCONCLUSIVE (error)*",
        ]
    )


def test_inconclusive_fails(gates: pytest.Pytester) -> None:
    """Unless the policy says otherwise."""
    (gates.path / "p.yaml").write_text("gates: [{metric: top1.agreement, min: 95%}]\n")
    result = run(gates, "--evalharness-run", "good")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["INCONCLUSIVE  top1.agreement: 0.95 *, limit: min 0.95"])


def test_an_anomaly_fails(gates: pytest.Pytester, api: FakeApi) -> None:
    """However good the numbers are."""
    load = api.load_run

    def anomalous(path: str | Path) -> Any:
        loaded = load(path)
        loaded.anomalies.append(Anomaly(kind="nan", message="NaN logits"))
        return loaded

    api.load_run = anomalous  # type: ignore[method-assign]
    run(gates, "--evalharness-run", "good").assert_outcomes(failed=5)


def test_a_waived_gate_is_an_expected_failure_with_its_reason(gates: pytest.Pytester) -> None:
    """And a waiver that is no longer needed warns."""
    waiver = "waivers:\n  - {{gate: {}, reason: issue 12, expires: 2999-01-01}}\n"
    (gates.path / "p.yaml").write_text(POLICY + waiver.format("kl.mean"))
    result = run(gates, "--evalharness-run", "bad", "-rx")
    result.assert_outcomes(passed=4, xfailed=1)
    result.stdout.fnmatch_lines(["XFAIL p.yaml::kl.mean - *FAIL, waived: issue 12"])
    (gates.path / "p.yaml").write_text(POLICY + waiver.format("top1.agreement"))
    result = run(gates, "--evalharness-run", "good")
    result.assert_outcomes(passed=5, warnings=1)
    result.stdout.fnmatch_lines(["*GateWarning: waiver of top1.agreement*: unused (issue 12)"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gates:\n  - {metric: kl.meen, max: 1}\n", "*p.yaml:2: gates[[]0].metric: unknown*"),
        ("gates:\n  - {metric: kl.mean\n", "*p.yaml:3: column 1: not valid YAML*"),
        ("extends: evalharness:nothing\n", "*p.yaml:1: extends: no policy 'nothing' ships*"),
    ],
)
def test_a_policy_that_is_wrong_is_a_collection_error(
    gates: pytest.Pytester, text: str, message: str
) -> None:
    """With file, line and key, and without a traceback."""
    (gates.path / "p.yaml").write_text(text)
    result = run(gates, "--evalharness-run", "good")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_a_run_that_is_none_is_a_collection_error(gates: pytest.Pytester) -> None:
    """Nothing is skipped for it."""
    result = run(gates, "--evalharness-run", "nowhere")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*nowhere: not a run: it has no manifest.json*"])


def test_an_input_error_while_deciding_fails_every_item(gates: pytest.Pytester) -> None:
    """A scope that matches nothing is in no way green."""
    (gates.path / "p.yaml").write_text(
        "gates:\n  - {metric: kl.mean, max: 1}\n"
        "  - {metric: layer.error.total, scope: {layer: h.*}, max: 1, each: true}\n"
    )
    result = run(gates, "--evalharness-run", "good")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["*p.yaml:3: gates[[]1].scope: 'layer=h.*' matches nothing*"])
