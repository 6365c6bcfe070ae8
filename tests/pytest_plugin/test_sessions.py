"""The session's run, the fixtures, and a session that uses none of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import evalharness
from tests.pytest_plugin.fake_api import PLUGIN, POLICY, FakeApi, run

pytest_plugins = ["pytester"]

# -- comparing within the session


def test_without_a_run_the_comparison_is_made_once(gates: pytest.Pytester, api: FakeApi) -> None:
    """For all policies; an `each` gate is then one item, as good as its worst match."""
    (gates.path / "q.yaml").write_text(POLICY)
    pair = ("--evalharness-base", "b.yaml", "--evalharness-candidate", "c.yaml")
    result = run(gates, *pair, "--evalharness-suite", "demo", "-v")
    result.assert_outcomes(passed=6, failed=2)
    result.stdout.fnmatch_lines(["p.yaml::block PASSED*", "q.yaml::kl.mean FAILED*"])
    ((base, candidate, options),) = api.compared
    assert (base, candidate, options["suite"]) == ("b.yaml", "c.yaml", "demo")
    assert options["gates"] == gates.path / "p.yaml"


def test_the_pair_may_be_in_the_ini_file(gates: pytest.Pytester, api: FakeApi) -> None:
    """Relative to the root directory, from wherever pytest is started."""
    (gates.path / "b.yaml").touch()
    gates.makeini("[pytest]\nevalharness_base = b.yaml\nevalharness_candidate = c.yaml\n")
    run(gates, "p.yaml").assert_outcomes(passed=3, failed=1)
    assert api.compared[0][:2] == (str(gates.path / "b.yaml"), "c.yaml")


def test_a_comparison_that_fails_is_not_tried_again(gates: pytest.Pytester, api: FakeApi) -> None:
    """Each item fails with its message."""
    pair = ("--evalharness-base", "b.yaml", "--evalharness-candidate", "broken.yaml")
    result = run(gates, *pair)
    result.assert_outcomes(failed=4)
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
        from tests.pytest_plugin.fake_api import FakeApi

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
        "-p",
        "xdist",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--evalharness-base",
        "b.yaml",
        "--evalharness-candidate",
        "c.yaml",
    )
    result.assert_outcomes(passed=8)
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
    result.assert_outcomes(passed=4, failed=2, warnings=1, deselected=4)
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
