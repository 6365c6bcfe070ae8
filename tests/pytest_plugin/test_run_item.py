"""The run itself is judged, whichever gates are selected or waived; no policy goes unseen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from evalharness.spec.result import Anomaly
from tests.pytest_plugin.fake_api import POLICY, FakeApi, one, run

pytest_plugins = ["pytester"]

BYTES = "gates: [{metric: weights.bits_per_weight, max: 40}]\n"
WAIVED = (
    "gates: [{metric: kl.mean, max: 0.05}]\nwaivers:\n"
    "  - {gate: kl.mean, reason: issue 12, expires: 2999-01-01}\n"
)


@pytest.fixture
def anomalous(gates: pytest.Pytester, api: FakeApi) -> pytest.Pytester:
    """A folder whose runs gave NaN."""
    bits = one("weights.bits_per_weight", 4.5, 4.5, 4.5)
    api.runs = {name: (*found, bits) for name, found in api.runs.items()}
    load = api.load_run

    def with_anomaly(path: str | Path) -> Any:
        loaded = load(path)
        loaded.anomalies.append(Anomaly(kind="nan", message="NaN logits"))
        return loaded

    api.load_run = with_anomaly  # type: ignore[method-assign]
    return gates


@pytest.mark.parametrize(
    "policy", [BYTES, WAIVED, "gates: [{metric: kl.mean, max: 1, severity: warn}]\n"]
)
def test_an_anomalous_run_is_never_green(anomalous: pytest.Pytester, policy: str) -> None:
    """Also where no gate of the policy objects to it."""
    (anomalous.path / "p.yaml").write_text(policy)
    result = run(anomalous, "p.yaml", "--evalharness-run", "bad")
    result.stdout.fnmatch_lines(
        ["The run cannot be trusted: NaN logits.", "FAILED p.yaml::the run itself - *"]
    )
    assert result.ret == 1


@pytest.mark.parametrize(
    "selection",
    [
        ["p.yaml", "-k", "nothing"],
        ["p.yaml", "-k", "not itself"],
        ["p.yaml", "-m", "nothing"],
        ["p.yaml", "--deselect", "p.yaml::the run itself"],
        ["p.yaml::kl.mean"],
        [".", "-k", "test_own"],
    ],
)
def test_no_selection_removes_the_run(anomalous: pytest.Pytester, selection: list[str]) -> None:
    """Of gates, of marks, of nodes, or of other tests beside them."""
    (anomalous.path / "p.yaml").write_text(WAIVED)
    anomalous.makepyfile("def test_own(): pass")
    result = run(anomalous, *selection, "--evalharness-run", "bad")
    result.stdout.fnmatch_lines(["FAILED p.yaml::the run itself - The run cannot be trusted: NaN*"])
    assert result.ret == 1


def test_what_the_policy_lets_through_is_let_through(anomalous: pytest.Pytester) -> None:
    """By its own word, as on the command line."""
    (anomalous.path / "p.yaml").write_text("defaults: {on_anomalous: warn}\n" + POLICY)
    assert run(anomalous, "p.yaml", "--evalharness-run", "good").ret == 0


def test_a_run_of_which_only_bytes_are_gated_is_incomplete(
    gates: pytest.Pytester, api: FakeApi
) -> None:
    """Nothing says what the candidate does, unless the policy wants it so."""
    api.runs["bytes"] = (one("weights.bits_per_weight", 4.5, 4.5, 4.5),)
    (gates.path / "p.yaml").write_text(BYTES)
    result = run(gates, "p.yaml", "--evalharness-run", "bytes")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["The run is incomplete for this policy: no gate*"])
    (gates.path / "p.yaml").write_text("on_incomplete: warn\n" + BYTES)
    run(gates, "p.yaml", "--evalharness-run", "bytes").assert_outcomes(passed=2)


def test_assert_gate_fails_on_an_anomalous_run(anomalous: pytest.Pytester) -> None:
    """Bytes alone may be asserted, and say nothing of a run that cannot be trusted."""
    anomalous.makepyfile("def test_b(assert_gate): assert_gate('weights.bits_per_weight', max=5)")
    result = run(anomalous, "-k", "test_b", "--evalharness-run", "good", "--ignore", "p.yaml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["The run cannot be trusted: NaN logits."])


def test_selecting_other_tests_asks_for_no_comparison(gates: pytest.Pytester, api: FakeApi) -> None:
    """It takes minutes, and there is no run yet that could be green."""
    gates.makepyfile("def test_own(): pass")
    pair = ("--evalharness-base", "b.yaml", "--evalharness-candidate", "c.yaml")
    run(gates, *pair, "-k", "test_own").assert_outcomes(passed=1, deselected=3)
    assert api.compared == []


# -- which files are policies

SEEN: dict[str, bytes] = {
    "extends a file, without gates of its own": b"extends: p.yaml\n",
    "extends a file, and only changes confidence": b"confidence: .9\nextends: p.yaml\n",
    "quoted": b'"gates": [{metric: kl.mean, max: 0.05}]\n',
    "quoted once": b"'gates':\n- {metric: kl.mean, max: 0.05}\n",
    "flow": b"{gates: [{metric: kl.mean, max: 0.05}]}\n",
    "flow over lines": b"{\n  version: 1,\n  gates: [{metric: kl.mean, max: 0.05}]\n}\n",
    "JSON": b'{"version": 1, "gates": [{"metric": "kl.mean", "max": 0.05}]}\n',
    "byte-order mark": b"\xef\xbb\xbfgates: [{metric: kl.mean, max: 0.05}]\n",
    "a space before the colon": b"gates : [{metric: kl.mean, max: 0.05}]\n",
    "after a document marker": b"--- {gates: [{metric: kl.mean, max: 0.05}]}\n",
    "indented": b"  gates:\n  - {metric: kl.mean, max: 0.05}\n",
}
WRONG: dict[str, bytes] = {
    "Latin-1": "name: gr\u00fcn\ngates: [{metric: kl.mean, max: 0.05}]\n".encode("latin-1"),
    "UTF-16": "gates: [{metric: kl.mean, max: 0.05}]\n".encode("utf-16"),
    "a rule without its dash": b"gates: {metric: kl.mean, max: 0.05}\n",
    "a mapping of rules": b"version: 1\ngates: {kl: {metric: kl.mean, max: 0.05}}\n",
    "flow that is not closed": b"{version: 1, 'gates': [{metric: kl.mean, max: 0.05}]\n",
    "a key given twice": b"version: 1\ngates: [{metric: kl.mean, max: 1}]\ngates: []\n",
    "two documents": b"gates: [{metric: kl.mean, max: 1}]\n---\ngates: []\n",
    "extends what is not there": b"extends: gone.yaml\n",
    "an unknown key": b"gates: [{metric: kl.mean, max: 1}]\nconfidense: 0.9\n",
    "no gates": b"version: 1\ngates:\n",
    "waivers alone": b"waivers:\n- {gate: kl.mean, reason: x, expires: 2999-01-01}\n",
    "a control character": b"gates: [{metric: kl.mean, max: 1}] # \x01\n",
}
OTHER: dict[str, bytes] = {
    "a mapping under gates:": b"gates: {open: true}\n",
    "a pipeline's template": b"extends: base.yml\njobs: []\n",
    "a list": b"- gates:\n",
    "gates further in": b"garden:\n  gates: [north]\n  extends: far\n",
    "nothing": b"",
    "text that does not parse": b"{{ template }}: x: y\n",
    "further in, and does not parse": b"garden:\n  gates: [north\n",
}


def written(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Their names in ``folder``, beside a policy that passes."""
    names = [f"{title.replace(' ', '-')}.yml" for title in files]
    for name, content in zip(names, files.values()):
        (folder / name).write_bytes(content)
    return names


def test_a_policy_is_seen_however_it_is_written(gates: pytest.Pytester) -> None:
    """Each has the gate that fails."""
    names = written(gates.path, SEEN)
    result = run(gates, "--evalharness-run", "bad", "-rA", "-k", "kl")
    for name in names:
        result.stdout.fnmatch_lines_random([f"FAILED {name}::kl.mean - FAIL*"])


def test_what_may_be_a_policy_fails_and_does_not_vanish(gates: pytest.Pytester) -> None:
    """Named, without a traceback, and the session is not green."""
    names = written(gates.path, WRONG)
    result = run(gates, "--evalharness-run", "good")
    result.assert_outcomes(errors=len(WRONG))
    result.stdout.fnmatch_lines_random([f"ERROR {name}*" for name in names])
    result.stdout.no_fnmatch_line("*Traceback*")
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_a_policy_that_pytest_would_pass_by_fails(gates: pytest.Pytester) -> None:
    """A link to nothing, in a ring, or a pipe: all but those that the user ignores."""
    folder = gates.mkdir("policies")
    (folder / "gone.yaml").symlink_to("nowhere.yaml")
    os.mkfifo(folder / "pipe.yml")
    (folder / "left.yaml").symlink_to("elsewhere.yaml")
    (folder / "notes.txt").symlink_to("nowhere.txt")
    (folder / "folder.yaml").mkdir()
    result = run(gates, "--evalharness-run", "good", f"--ignore={folder / 'left.yaml'}")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines_random(
        [f"*policies/{name}: cannot be read: a link*" for name in ("gone.yaml", "pipe.yml")]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_other_yaml_is_left_alone(gates: pytest.Pytester) -> None:
    """It has keys that no policy has, or none that a policy has."""
    names = written(gates.path, OTHER)
    run(gates, *names, "--evalharness-run", "good").assert_outcomes()
