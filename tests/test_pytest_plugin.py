"""Gates as pytest items, through pytester, on runs made by hand."""

from __future__ import annotations

import subprocess
import sys
import types
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import evalharness
import evalharness.metrics  # imported once: pytester takes out what is first imported inside it
from evalharness.errors import InputError
from evalharness.gates import Decision, decide, load_policy
from evalharness.spec.estimate import Estimate
from evalharness.spec.result import Anomaly
from tests.gates.fakes import FakeEstimates

pytest_plugins = ["pytester"]

_INSTALLED = any(e.value == "evalharness.pytest_plugin" for e in entry_points(group="pytest11"))
# Hypothesis imports itself anew in every session inside a session: two seconds each.
PLUGIN: tuple[str, ...] = ("-p", "no:hypothesispytest")
PLUGIN += () if _INSTALLED else ("-p", "evalharness.pytest_plugin")
POLICY = """
version: 1
gates:
  - metric: kl.mean
    max: 0.05
  - metric: top1.agreement
    min: 90%
  - id: block
    metric: layer.error.total
    max: 0.2
    each: true
"""


def _one(metric: str, value: float, low: float, high: float, **scope: str) -> Estimate:
    more = {"unit": evalharness.metrics.REGISTRY[metric].unit, "worst": "token at wiki/7"}
    return Estimate(
        id=metric, value=value, low=low, high=high, n=640, clusters=64, scope=scope, **more
    )


GOOD = (
    _one("kl.mean", 0.02, 0.01, 0.03),
    _one("top1.agreement", 0.95, 0.94, 0.96),
    _one("layer.error.total", 0.1, 0.09, 0.11, layer="model.layers.0"),
    _one("layer.error.total", 0.1, 0.09, 0.11, layer="model.layers.1"),
)
BAD_KL = _one("kl.mean", 0.08, 0.07, 0.09)


class FakeApi(types.ModuleType):
    """Stands in for `evalharness.api`: runs are names of lists of estimates."""

    def __init__(self) -> None:
        super().__init__("evalharness.api")
        self.runs: dict[str, tuple[Estimate, ...]] = {"good": GOOD, "bad": (BAD_KL, *GOOD[1:])}
        self.compared: list[tuple[Any, ...]] = []

    def load_run(self, path: str | Path) -> Any:
        if Path(path).name not in self.runs:
            raise InputError("not a run: it has no manifest.json", path=path)
        return self._run(Path(path).name)

    def _run(self, name: str) -> Any:
        anomalies: list[Anomaly] = []
        return types.SimpleNamespace(
            estimates=FakeEstimates(*self.runs[name]), anomalies=anomalies, path=Path(name)
        )

    def check(self, run: Any, gates: Path) -> Decision:
        return decide(load_policy(gates), run.estimates, anomalies=run.anomalies)

    def compare(self, base: str, candidate: str, **options: Any) -> Any:
        self.compared.append((base, candidate, options))
        if candidate == "broken.yaml":
            raise InputError("no such file", path=candidate)
        return self._run("bad")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """The fake, where the plugin will import it from."""
    fake = FakeApi()
    monkeypatch.setitem(sys.modules, "evalharness.api", fake)
    monkeypatch.setattr(evalharness, "api", fake, raising=False)
    return fake


@pytest.fixture
def gates(pytester: pytest.Pytester, api: FakeApi) -> pytest.Pytester:
    """A folder with a policy, and a YAML file that is none."""
    (pytester.path / "p.yaml").write_text(POLICY)
    (pytester.path / "compose.yaml").write_text("services: {web: {image: x}}\n")
    return pytester


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*PLUGIN, *args)


def test_each_gate_is_an_item(gates: pytest.Pytester) -> None:
    """And each match of an `each` gate, by its own name."""
    result = run(gates, "p.yaml", "--evalharness-run", "good", "-v")
    result.stdout.fnmatch_lines(
        [
            "p.yaml::kl.mean PASSED*",
            "p.yaml::top1.agreement PASSED*",
            "p.yaml::block[[]layer=model.layers.0] PASSED*",
            "p.yaml::block[[]layer=model.layers.1] PASSED*",
        ]
    )
    result.assert_outcomes(passed=4)
    assert result.ret == 0


def test_a_folder_is_searched_for_policies(gates: pytest.Pytester) -> None:
    """Ordinary YAML is left alone."""
    run(gates, "--evalharness-run", "good").assert_outcomes(passed=4)


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
    result.assert_outcomes(passed=3, failed=1)
    assert result.ret == 1


def test_items_can_be_selected_and_stop_at_the_first_failure(gates: pytest.Pytester) -> None:
    """-k and -x, as for any test."""
    run(gates, "--evalharness-run", "bad", "-k", "top1").assert_outcomes(passed=1, deselected=3)
    run(gates, "--evalharness-run", "bad", "-x").assert_outcomes(failed=1)
    node = "p.yaml::block[layer=model.layers.1]"
    run(gates, "--evalharness-run", "bad", node).assert_outcomes(passed=1)


def test_junit_has_the_numbers(gates: pytest.Pytester) -> None:
    """As properties of each test case."""
    run(gates, "p.yaml", "--evalharness-run", "bad", "--junitxml=j.xml")
    text = (gates.path / "j.xml").read_text()
    assert 'name="verdict" value="FAIL"' in text
    assert 'name="observed" value="0.08"' in text
    assert 'name="threshold" value="0.05"' in text
    assert 'tests="4"' in text


def test_what_does_not_block_warns(gates: pytest.Pytester) -> None:
    """A pytest warning, and never a silent green."""
    (gates.path / "p.yaml").write_text(
        "gates:\n  - {metric: kl.mean, max: 0.05, severity: warn}\n"
        "  - {metric: kl.p99, max: 1, severity: info}\n"
        "  - {metric: top1.agreement, min: 95%, on_inconclusive: warn}\n"
    )
    result = run(gates, "--evalharness-run", "bad")
    result.assert_outcomes(passed=3, warnings=3)
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
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["INCONCLUSIVE  top1.agreement: 0.95 *, limit: min 0.95"])


def test_an_anomaly_fails(gates: pytest.Pytester, api: FakeApi) -> None:
    """However good the numbers are."""
    load = api.load_run

    def anomalous(path: str | Path) -> Any:
        loaded = load(path)
        loaded.anomalies.append(Anomaly(kind="nan", message="NaN logits"))
        return loaded

    api.load_run = anomalous  # type: ignore[method-assign]
    run(gates, "--evalharness-run", "good").assert_outcomes(failed=4)


def test_a_waived_gate_is_an_expected_failure_with_its_reason(gates: pytest.Pytester) -> None:
    """And a waiver that is no longer needed warns."""
    waiver = "waivers:\n  - {{gate: {}, reason: issue 12, expires: 2999-01-01}}\n"
    (gates.path / "p.yaml").write_text(POLICY + waiver.format("kl.mean"))
    result = run(gates, "--evalharness-run", "bad", "-rx")
    result.assert_outcomes(passed=3, xfailed=1)
    result.stdout.fnmatch_lines(["XFAIL p.yaml::kl.mean - *FAIL, waived: issue 12"])
    (gates.path / "p.yaml").write_text(POLICY + waiver.format("top1.agreement"))
    result = run(gates, "--evalharness-run", "good")
    result.assert_outcomes(passed=4, warnings=1)
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
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*p.yaml:3: gates[[]1].scope: 'layer=h.*' matches nothing*"])


@pytest.mark.parametrize(
    "text", ["gates: {open: true}\n", "extends: base.yml\njobs: []\n", "- gates:\n"]
)
def test_other_yaml_with_such_keys_is_left_alone(gates: pytest.Pytester, text: str) -> None:
    """A mapping under gates:, or extending something else, is not ours."""
    (gates.path / "p.yaml").write_text(text)
    result = run(gates, "--evalharness-run", "good")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


# -- comparing within the session


def test_without_a_run_the_comparison_is_made_once(gates: pytest.Pytester, api: FakeApi) -> None:
    """For all policies; an `each` gate is then one item, as good as its worst match."""
    (gates.path / "q.yaml").write_text(POLICY)
    pair = ("--evalharness-base", "b.yaml", "--evalharness-candidate", "c.yaml")
    result = run(gates, *pair, "--evalharness-suite", "demo", "-v")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(["p.yaml::block PASSED*", "q.yaml::kl.mean FAILED*"])
    ((base, candidate, options),) = api.compared
    assert (base, candidate, options["suite"]) == ("b.yaml", "c.yaml", "demo")
    assert options["gates"] == gates.path / "p.yaml"


def test_the_pair_may_be_in_the_ini_file(gates: pytest.Pytester, api: FakeApi) -> None:
    """Relative to the root directory, from wherever pytest is started."""
    (gates.path / "b.yaml").touch()
    gates.makeini("[pytest]\nevalharness_base = b.yaml\nevalharness_candidate = c.yaml\n")
    run(gates, "p.yaml").assert_outcomes(passed=2, failed=1)
    assert api.compared[0][:2] == (str(gates.path / "b.yaml"), "c.yaml")


def test_a_comparison_that_fails_is_not_tried_again(gates: pytest.Pytester, api: FakeApi) -> None:
    """Each item fails with its message."""
    pair = ("--evalharness-base", "b.yaml", "--evalharness-candidate", "broken.yaml")
    result = run(gates, *pair)
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["broken.yaml: no such file"])
    assert len(api.compared) == 1


def test_collecting_does_not_compare(gates: pytest.Pytester, api: FakeApi) -> None:
    """--collect-only takes no model."""
    pair = ("--evalharness-base", "b.yaml", "--evalharness-candidate", "c.yaml")
    run(gates, *pair, "--collect-only").stdout.fnmatch_lines(["*<GateItem kl.mean>"])
    assert api.compared == []


@pytest.mark.e2e
def test_workers_of_xdist_share_one_comparison(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first makes it; the others wait for it and load it."""
    pytest.importorskip("xdist")
    monkeypatch.setenv("PYTHONPATH", str(Path(evalharness.__file__).parent.parent))
    (pytester.path / "p.yaml").write_text(POLICY)
    (pytester.path / "q.yaml").write_text(POLICY)
    pytester.makeconftest(
        """
        import sys, time
        from pathlib import Path
        import evalharness
        from tests.test_pytest_plugin import FakeApi

        class Api(FakeApi):
            def compare(self, base, candidate, **options):
                with open("compared.txt", "a") as file:
                    file.write(f"{options['out']}\\n")
                time.sleep(0.5)
                options["out"].mkdir(parents=True)
                (options["out"] / "result.json").touch()
                self.runs[options["out"].name] = self.runs["good"]
                return self._run("good")

            def load_run(self, path):
                assert (path / "result.json").is_file()
                return self._run("good")

        evalharness.api = sys.modules["evalharness.api"] = Api()
        """
    )
    result = pytester.runpytest_subprocess(
        *PLUGIN,
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--evalharness-base",
        "b.yaml",
        "--evalharness-candidate",
        "c.yaml",
    )
    result.assert_outcomes(passed=6)
    assert len((pytester.path / "compared.txt").read_text().splitlines()) == 1


# -- fixtures


def test_the_fixtures_give_a_run_a_comparison_and_an_assertion(
    gates: pytest.Pytester, api: FakeApi
) -> None:
    """In ordinary test files."""
    gates.makepyfile(
        """
        def test_run(evalharness_run):
            assert evalharness_run.estimates.scopes("kl.mean") == [{}]

        def test_kept(assert_gate):
            assert assert_gate("kl.mean", max=0.05).verdict == "PASS"

        def test_broken(assert_gate):
            assert_gate("top1.agreement", min="99%")

        def test_compare(evalharness_compare, assert_gate):
            run = evalharness_compare("b.yaml", "c.yaml", suite="demo")
            assert_gate("kl.mean", max=0.05, run=run)

        def test_warns(assert_gate):
            assert_gate("top1.agreement", min="99%", severity="warn")
        """
    )
    result = run(gates, "--evalharness-run", "good", "-k", "test_")
    result.assert_outcomes(passed=3, failed=2, warnings=1, deselected=4)
    result.stdout.fnmatch_lines(["FAIL  top1.agreement: 0.95 *, limit: min 0.99"])
    assert api.compared[0][2]["out"].name == "run"


def test_the_old_name_of_the_fixture_still_works_and_says_the_new_one(
    gates: pytest.Pytester,
) -> None:
    """Only where it is used."""
    gates.makepyfile("def test_old(compare): assert compare('b.yaml', 'c.yaml')")
    result = run(gates, "-W", "always::DeprecationWarning", "-k", "test_old")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*DeprecationWarning: the fixture `compare`*evalharness_compare*"])


def test_the_run_fixture_without_a_run_fails_and_does_not_skip(gates: pytest.Pytester) -> None:
    """It says what to give."""
    gates.makepyfile("def test_run(evalharness_run): pass")
    result = run(gates)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no run to look at: give --evalharness-run RUN, or*"])


# -- unused


def test_unused_it_collects_and_says_nothing(gates: pytest.Pytester) -> None:
    """The same output as without the plugin."""
    gates.makepyfile("def test_one(): pass")
    result = run(gates, "-q")
    result.assert_outcomes(passed=1)
    assert "evalharness" not in result.stdout.str()


def test_unused_it_imports_nothing_of_weight() -> None:
    """Every pytest of every project in the environment loads the plugin."""
    code = (
        "import sys, evalharness.pytest_plugin; "
        "print([m for m in ('numpy', 'pandas', 'scipy', 'pydantic', 'yaml', 'torch', "
        "'evalharness.gates', 'evalharness.api') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(evalharness.__file__).parent.parent,
    )
    assert result.stdout.strip() == "[]"
