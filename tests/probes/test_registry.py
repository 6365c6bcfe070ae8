"""Probes of other packages: found by entry point, checked before anything runs, and measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalharness import probes
from evalharness.errors import InputError, RunError
from evalharness.probes.registry import check_probes, watched_windows
from evalharness.progress import Progress
from evalharness.run import records
from evalharness.spec import plugins
from evalharness.spec.plugins import PluginWarning
from evalharness.spec.suite import load_suite
from evalharness.spec.yamlfile import load_yaml
from evalharness.workflow.compare import compare
from evalharness.workflow.plan import plan_job

MODULE = """
import pyarrow as pa
from evalharness.probes import Probe
from evalharness.spec.base import Spec

COUNTS = pa.schema({"windows": "int32"})

class Settings(Spec):
    windows: int = 3

def measure(run):
    rows = [{"windows": len(run.windows[: run.settings.windows])}]
    return {"counts": pa.Table.from_pylist(rows, schema=COUNTS)}

def fail(run):
    raise KeyError("hidden")

def summary(evidence):
    return {"windows": int(evidence.frame("counts")["windows"].sum())}

facts = {"records": {"counts": COUNTS}, "measure": measure}
GOOD = Probe(name="counting", settings=Settings, summary=summary, **facts)
PLAIN = Probe(name="counting", **facts)
FAILING = Probe(name="counting", **(facts | {"measure": fail}))
STRANGE = Probe(name="counting", **(facts | {"measure": lambda run: {"others": None}}))
OTHER_NAME = Probe(name="counts", **facts)
TAKEN = Probe(name="counting", **(facts | {"records": {"tokens": COUNTS}}))
"""


@pytest.fixture
def offer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[[str], None]:
    """Put a package on the path that offers a probe ``counting``."""
    package = f"package_of_probes_{abs(hash(request.node.name))}"

    def make(attribute: str) -> None:
        (tmp_path / f"{package}.py").write_text(MODULE)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        text = f"[evalharness.probes]\ncounting = {package}:{attribute}\n"
        (info / "entry_points.txt").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    monkeypatch.setattr(plugins, "_broken", {})
    monkeypatch.setattr(records, "SCHEMAS", dict(records.SCHEMAS))
    monkeypatch.setattr("evalharness.run.directory.SCHEMAS", records.SCHEMAS)
    return make


def asked(project: Path, keys: str = "", probe: str = "counting") -> Path:
    """The project's suite with another probe."""
    file = project / "suite.yaml"
    file.write_text(
        file.read_text().replace("probes: [layers]", f"probes: [layers, {probe}]{keys}")
    )
    return file


def check(file: Path) -> None:
    check_probes(load_suite(file), load_yaml(file))


def compared(project: Path) -> Any:
    """Result and run of the project's pair."""
    options = {"suite": project / "suite.yaml", "gates": project / "gates.yaml"}
    files = project / "base.yaml", project / "candidate.yaml"
    return compare(plan_job(*files, out=project / "run", **options), Progress())


def test_every_file_of_ours_is_found_by_its_name() -> None:
    """Adding one is adding a file."""
    assert plugins.built_in_names(probes, "PROBE") == ["activations", "latency", "layers"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("\ncounting: {windws: 2}", "counting.windws: unknown key. Did you mean 'windows'?"),
        ("\ncounting: {windows: many}", "counting.windows: should be a valid integer"),
        ("\ncounting: 0", "counting: should be a valid dictionary"),
    ],
)
def test_settings_of_another_package_are_checked_as_ours_are(
    project: Path, offer: Callable[[str], None], keys: str, message: str
) -> None:
    """With the file, the line and the key."""
    offer("GOOD")
    file = asked(project, keys)
    with pytest.raises(InputError) as caught:
        check(file)
    text = str(caught.value)
    assert message in text
    assert text.startswith(f"{file}:7: ")


def test_a_probe_without_settings_takes_no_keys(
    project: Path, offer: Callable[[str], None]
) -> None:
    """Every one of ours has some."""
    offer("PLAIN")
    file = asked(project, "\ncounting: {windows: 3}")
    with pytest.raises(InputError, match=r":7: counting: unknown key"):
        check(file)


def test_a_probe_that_nobody_offers_is_named_with_those_that_are(
    project: Path, offer: Callable[[str], None]
) -> None:
    """And its place in the suite."""
    offer("GOOD")
    file = asked(project, probe="countig")
    with pytest.raises(InputError) as caught:
        check(file)
    assert f"{file}:6: probes[1]: unknown probe 'countig'" in str(caught.value)
    assert "Did you mean 'counting'?" in str(caught.value)


@pytest.mark.parametrize(
    ("attribute", "why"),
    [
        ("NOT_THERE", "has no attribute 'NOT_THERE'"),
        ("COUNTS", "must be a Probe (got Schema)"),
        ("OTHER_NAME", "the probe that it offers is called 'counts'"),
        ("TAKEN", "records 'tokens' have another schema already"),
    ],
)
def test_a_broken_probe_is_an_input_error_that_says_why(
    project: Path, offer: Callable[[str], None], attribute: str, why: str
) -> None:
    """Where a suite asks for it."""
    offer(attribute)
    with (
        pytest.warns(PluginWarning, match="'counting' of package_of_probes"),
        pytest.raises(InputError) as caught,
    ):
        check(asked(project))
    assert "unknown probe 'counting'" in str(caught.value)
    assert why in str(caught.value)


def test_a_probe_that_watches_says_how_many_windows_it_is_shown(project: Path) -> None:
    """Its own setting; none where the suite names none."""
    suite = load_suite(project / "suite.yaml")
    assert watched_windows(suite) == suite.layers.windows == 4
    assert watched_windows(suite.model_copy(update={"probes": ("latency",)})) == 0
    with pytest.raises(ValueError, match="neither measure nor watch"):
        probes.Probe(name="x", records={})
    with pytest.raises(ValueError, match="no `windows`"):
        probes.Probe(name="x", records={}, watch=lambda run: pytest.fail("called"))


@pytest.mark.e2e
def test_what_it_says_of_its_records_is_in_the_result(
    project: Path, offer: Callable[[str], None]
) -> None:
    """Beside the suite's own settings for it."""
    offer("GOOD")
    asked(project, "\ncounting: {windows: 2}")
    result, run = compared(project)
    assert result.extra == {"counting": {"windows": 2}}
    assert json.loads((run.path / "result.json").read_text())["extra"] == result.extra
    assert run.manifest["suite"]["counting"] == {"windows": 2}


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("attribute", "why"), [("FAILING", "KeyError: 'hidden'"), ("STRANGE", "records 'others'")]
)
def test_a_probe_that_fails_is_named_and_what_was_recorded_is_kept(
    project: Path, offer: Callable[[str], None], attribute: str, why: str
) -> None:
    """Exit 4, with the command that goes on."""
    offer(attribute)
    asked(project)
    with pytest.raises(RunError, match="probe 'counting' of another package failed") as caught:
        compared(project)
    assert why in str(caught.value)
    assert "Resume with:" in str(caught.value)
    assert list((project / "run" / "records").glob("tokens-*"))
