"""Gates as pytest items: ``pytest gates/ --evalharness-run RUN``.

Every policy file becomes a file of tests, every gate one item (every match of an `each: true` gate
one, where the run is known), so that -k, -x, JUnit, reruns and xdist work as they do for tests.

    PASS                                passes
    waived                              xfail, with the waiver's reason
    not PASS, and it does not block     passes with a `GateWarning`
    any other                           fails with what was measured and the limit

One more item a policy is the run itself: it fails where the run cannot be trusted or is incomplete,
whatever becomes of the gates. Selecting gates (-k, -m, --deselect, a node id) does not remove it.

Nothing is skipped, and what may be a policy and cannot be read as one is an error. Without
``--evalharness-run``, and without a base and a candidate to compare, nothing is collected and
nothing of evalharness is imported; this module imports pytest alone.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from evalharness.api import LoadedRun
    from evalharness.gates import Decision
    from evalharness.spec.result import GateResult

_OPTIONS = {
    "run": "a finished run, whose gates are decided",
    "base": "model file of the reference, to compare when no run is given",
    "candidate": "model file of the candidate",
    "suite": "suite file or name (default: quick)",
}


class GateWarning(UserWarning):
    """A gate that did not pass and does not block, or a waiver that needs looking after."""


class GateError(Exception):
    """A gate that blocks; shown as its result, without a traceback."""

    def __init__(self, result: GateResult) -> None:
        super().__init__(result.reason)
        self.result = result


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add one option and one ini key (``evalharness_run`` …) for each of `_OPTIONS`."""
    group = parser.getgroup("evalharness", "gates on a comparison of two models")
    for name, text in _OPTIONS.items():
        group.addoption(f"--evalharness-{name}", metavar=name.upper(), help=text)
        parser.addini(f"evalharness_{name}", f"{text} (relative to the root directory)", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Collect policies only where there is a run, or a pair to compare."""
    source = Source(config)
    config.stash[_SOURCE] = source
    if source.given:
        config.pluginmanager.register(Collector(), "evalharness-collector")


class Source:
    """The session's run: loaded, or compared once, when first asked for."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._run: LoadedRun | None = None
        self._error: Exception | None = None

    @property
    def run_path(self) -> str | None:
        """The run that was given."""
        return self._option("run")

    @property
    def given(self) -> bool:
        """True when there is a run or a pair."""
        return bool(self.run_path or (self._option("base") and self._option("candidate")))

    def run(self, policy: Path | None = None) -> LoadedRun:
        """The run; an error is raised again each time, and what failed is not tried again.

        ``policy`` is the one that a comparison made now would write its verdict by.
        """
        if self._error is not None:
            raise self._error
        if self._run is None:
            try:
                self._run = self._load(policy)
            except Exception as error:
                self._error = error
                raise
        return self._run

    def _load(self, policy: Path | None) -> LoadedRun:
        from evalharness import api

        if self.run_path:
            return api.load_run(self.run_path)
        base, candidate = self._option("base"), self._option("candidate")
        if not (base and candidate):
            pytest.fail(
                "no run to look at: give --evalharness-run RUN, or --evalharness-base and "
                "--evalharness-candidate",
                pytrace=False,
            )
        return self._compare(base, candidate, policy)

    def _compare(self, base: str, candidate: str, policy: Path | None) -> LoadedRun:
        """Compare, once for all workers of xdist: the first does it, the others wait and load."""
        from filelock import FileLock

        from evalharness import api
        from evalharness.errors import EvalHarnessError

        out = self._out()
        failed = out.with_name(f"{out.name}.error")
        with FileLock(f"{out}.lock"):
            if failed.exists():
                raise EvalHarnessError(failed.read_text(encoding="utf-8"))
            if (out / "result.json").is_file():
                return api.load_run(out)
            suite = self._option("suite") or "quick"
            try:
                return api.compare(base, candidate, suite=suite, gates=policy or "default", out=out)
            except EvalHarnessError as error:
                failed.write_text(str(error), encoding="utf-8")
                raise

    def _out(self) -> Path:
        worker = getattr(self._config, "workerinput", None)
        name = worker["testrunuid"] if worker else uuid.uuid4().hex
        if self._config.cache is not None:
            return Path(self._config.cache.mkdir("evalharness")) / name
        return self._config.rootpath / "runs" / f"pytest-{name}"

    def _option(self, name: str) -> str | None:
        value = self._config.getoption(f"--evalharness-{name}")
        if value:
            return str(self._absolute(value, self._config.invocation_params.dir))
        value = self._config.getini(f"evalharness_{name}")
        return str(self._absolute(value, self._config.rootpath)) if value else None

    @staticmethod
    def _absolute(value: str, folder: Path) -> Path | str:
        path = folder / Path(value).expanduser()
        return path if path.exists() else value  # a suite may be the name of one that ships


_SOURCE = pytest.StashKey[Source]()


class Collector:
    """Registered only when the plugin is used."""

    @pytest.hookimpl
    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> PolicyFile | None:
        """Take YAML files that are policies; leave all others."""
        if file_path.suffix.lower() not in (".yaml", ".yml"):
            return None
        from evalharness.gates.recognise import may_be_policy

        if not may_be_policy(file_path):
            return None
        file: PolicyFile = PolicyFile.from_parent(parent, path=file_path)
        return file

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Take what pytest passes by in a folder, being no file: a link to nothing, a pipe."""
        from evalharness.gates.recognise import unreadable_policies

        report = yield
        if isinstance(collector, pytest.Directory) and report.passed:
            for path in unreadable_policies(collector.path):
                asked = {"collection_path": path, "config": collector.config}
                if not collector.ihook.pytest_ignore_collect(**asked):
                    report.result.append(PolicyFile.from_parent(collector, path=path))
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None]:
        """Judge the run itself beside whatever gates are left when all others have selected.

        Where no run is given, a policy of which no gate is left asks for no comparison.
        """
        collected = _policies(items)
        result = yield
        left = collected if config.stash[_SOURCE].run_path else _policies(items)
        items += [policy.run_item() for policy in left]
        return result


def _policies(items: list[pytest.Item]) -> list[PolicyFile]:
    """The policies that ``items`` are gates of, each once."""
    return list(dict.fromkeys(i.parent for i in items if isinstance(i.parent, PolicyFile)))


class PolicyFile(pytest.File):
    """A policy; decided once, when its first item runs."""

    _decision: Decision | None = None

    def collect(self) -> Iterator[GateItem]:
        """One item a gate, or one a match where `each` is set and the run is known."""
        from evalharness.errors import EvalHarnessError
        from evalharness.gates import expired_waivers, load_policy, result_ids, waiver_id

        source = self.config.stash[_SOURCE]
        if not self.path.is_file():
            raise self.CollectError(f"{self.path}: cannot be read: a link to nothing, or no file")
        try:
            policy = load_policy(self.path)
            for gate in policy.gates:
                known = source.run().estimates if source.run_path else None
                for name in result_ids(gate, known):
                    yield GateItem.from_parent(self, name=name, rule=gate.id, line=gate.line)
            for waiver in expired_waivers(policy):
                name, line = waiver_id(waiver), waiver.place.file.line(waiver.place.key)
                yield GateItem.from_parent(self, name=name, rule=waiver.spec.gate, line=line)
        except EvalHarnessError as error:
            raise self.CollectError(str(error)) from None

    def run_item(self) -> RunItem:
        """The item that stands for the run itself under this policy."""
        item: RunItem = RunItem.from_parent(self, name="the run itself")
        return item

    def decision(self) -> Decision:
        """The verdicts; waivers that need looking after are warned of once."""
        if self._decision is None:
            from evalharness import api

            run = self.config.stash[_SOURCE].run(self.path)
            self._decision = api.check(run, self.path)
            for waiver in self._decision.waivers:
                if waiver.state in ("expiring", "unused"):
                    text = f"waiver of {waiver.gate} until {waiver.expires}: {waiver.state}"
                    _warn(f"{text} ({waiver.reason})", str(self.path), None)
        return self._decision


class DecidedItem(pytest.Item):
    """Part of a decision; what blocks is shown without a traceback."""

    def decision(self) -> Decision:
        """The decision of the policy that this is an item of."""
        assert isinstance(self.parent, PolicyFile)
        return self.parent.decision()

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> str | Any:
        """What was measured and the limit; a traceback only for what is a defect of ours."""
        from evalharness.errors import EvalHarnessError
        from evalharness.gates.wording import in_lines

        error = excinfo.value
        if isinstance(error, GateError):
            return in_lines(error.result)
        if isinstance(error, EvalHarnessError | pytest.xfail.Exception):
            return str(error)
        return super().repr_failure(excinfo, style)


class RunItem(DecidedItem):
    """The run itself: whether it can be trusted, and is complete."""

    def runtest(self) -> None:
        """Fail where the decision blocks and no gate says why."""
        from evalharness.errors import EvalHarnessError

        decision = self.decision()
        self.user_properties += [("verdict", decision.verdict), ("headline", decision.headline)]
        told = any(g.blocking and g.verdict != "PASS" for g in decision.gates)
        if decision.objections or (decision.exit_code != 0 and not told):
            raise EvalHarnessError("\n".join(decision.objections or [decision.headline]))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The policy."""
        return self.path, None, self.name


class GateItem(DecidedItem):
    """One gate, or one match of it."""

    def __init__(self, *, rule: str, line: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rule = rule
        self.line = line

    def runtest(self) -> None:
        """Pass, warn, xfail or fail as the verdict says."""
        gates = self.decision().gates
        # An item that stands for all matches of a gate is as good as the worst of them.
        found = [g for g in gates if g.id == self.name] or [g for g in gates if g.rule == self.rule]
        if not found:
            pytest.fail(f"{self.name} was not decided in this run", pytrace=False)
        for result in found:
            prefix = "" if len(found) == 1 else f"{result.id}."
            self.user_properties += [
                (f"{prefix}{key}", getattr(result, key))
                for key in ("verdict", "observed", "low", "high", "threshold")
            ]
        failures = [g for g in found if g.blocking and g.verdict != "PASS"]
        if failures:
            raise GateError(failures[0])
        _report_the_rest(found)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The gate's line in its policy."""
        # Not the bare name, in whose dots pytest would see a class: it prints kl::mean for it.
        return self.path, None if self.line is None else self.line - 1, f"gate {self.name}"


def _report_the_rest(found: list[GateResult]) -> None:
    """Warn of what did not pass and does not block; xfail what is waived."""
    waived = [g for g in found if g.waiver is not None]
    for result in found:
        if result.verdict != "PASS" and result.waiver is None:
            text = f"{result.id}: {result.verdict} ({result.severity}). {result.reason}"
            _warn(text, result.file, result.line)
    if waived:
        pytest.xfail("; ".join(f"{g.verdict}, waived: {g.waiver}" for g in waived))


def _warn(text: str, file: str | None, line: int | None) -> None:
    """A `GateWarning` that points at the policy and not at this module."""
    warnings.warn_explicit(text, GateWarning, file or "evalharness", line or 1)


@pytest.fixture(scope="session")
def evalharness_run(pytestconfig: pytest.Config) -> LoadedRun:
    """The run of ``--evalharness-run``, or of the comparison made once for this session."""
    return pytestconfig.stash[_SOURCE].run()


@pytest.fixture(scope="session")
def evalharness_compare(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LoadedRun]:
    """``evalharness_compare(base, candidate, suite=…, gates=…)``: a comparison in a fresh folder.

    It takes the arguments of `evalharness.compare`.
    """

    def run(base: str | Path, candidate: str | Path, **options: Any) -> LoadedRun:
        from evalharness import api

        options.setdefault("out", tmp_path_factory.mktemp("evalharness") / "run")
        return api.compare(base, candidate, **options)

    return run


@pytest.fixture(scope="session")
def compare(evalharness_compare: Callable[..., LoadedRun]) -> Callable[..., LoadedRun]:
    """The old name of `evalharness_compare`, which any project may want for itself."""
    text = "the fixture `compare` of evalharness is called evalharness_compare now"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return evalharness_compare


@pytest.fixture
def assert_gate(request: pytest.FixtureRequest) -> Callable[..., GateResult]:
    """``assert_gate("kl.mean", max=0.05)``: fail unless the gate passes on a run.

    The keys are those of a gate in a policy file; ``run=`` takes another run than the session's.
    """

    def check(metric: str, *, run: LoadedRun | None = None, **gate: Any) -> GateResult:
        from evalharness.gates import decide, policy_from
        from evalharness.gates.wording import in_lines
        from evalharness.spec.yamlfile import YamlFile

        __tracebackhide__ = True
        looked_at = request.getfixturevalue("evalharness_run") if run is None else run
        data = {"gates": [{"metric": metric, **gate}], "on_incomplete": "warn"}
        policy = policy_from(YamlFile(Path("assert_gate"), data))
        decision = decide(policy, looked_at.estimates, anomalies=looked_at.anomalies)
        failures = [g for g in decision.gates if g.blocking and g.verdict != "PASS"]
        if failures or decision.objections:
            texts = [*map(in_lines, failures), *decision.objections]
            pytest.fail("\n".join(texts), pytrace=False)
        _report_the_rest(decision.gates)
        return decision.gates[0]

    return check
