"""Several candidates of one reference: one load, one run each, one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from evalharness.engines import loading
from evalharness.errors import InputError, RunError
from evalharness.progress import Progress
from evalharness.spec.schemas import schemas
from evalharness.workflow import memory_plan as memory
from evalharness.workflow.compare import compare
from evalharness.workflow.family import one_of, worst
from evalharness.workflow.plan import plan_job
from evalharness.workflow.several import Outcome, compare_many, plan_many
from tests.workflow.jobs import typed

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("EVALHARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def several(project: Path) -> Path:
    """The project, with an 8-bit candidate and a copy of the reference besides."""
    (project / "int8.yaml").write_text(
        "from: base.yaml\nname: int8\n"
        "simulate: {weights: {bits: 8, granularity: channel, symmetric: true}}\n"
    )
    (project / "copy.yaml").write_text("from: base.yaml\nname: copy\n")
    return project


def planned(project: Path, *names: str, **more: Any) -> Any:
    options = {
        "suite": project / "suite.yaml",
        "gates": project / "gates.yaml",
        "out": project / "runs",
    }
    files = [project / f"{n}.yaml" for n in names]
    return plan_many(project / "base.yaml", files, **(options | more))


def stable(result: Any) -> str:
    data = result.model_dump(exclude={"created", "cost", "command"})
    data["metrics"] = [m for m in data["metrics"] if not m["id"].startswith("latency")]
    return json.dumps(data, sort_keys=True)


def test_each_candidate_is_held_against_its_own_calibration_text(several: Path) -> None:
    """And not against the first one's."""
    suite = several / "suite.yaml"
    suite.write_text(suite.read_text().replace("[layers]", "[activations]"))
    for name, text in (("candidate", "lazy dog " * 80), ("int8", "jinxed wizards pluck ivy " * 80)):
        (several / f"{name}.txt").write_text(text)
        with open(several / f"{name}.yaml", "a") as file:
            file.write(f"manifest: {{calibration_data: {name}.txt}}\n")
    _, jobs = planned(several, "candidate", "int8", "copy")
    assert [[t.text[:4] for t in job.calibration] for job in jobs] == [["lazy"], ["jinx"], []]
    outcomes, _ = compare_many(several / "runs", jobs, Progress())
    alone = [compare(planned_alone(several, n))[0] for n in ("candidate", "int8")]
    for outcome, result in zip(outcomes, alone, strict=False):
        assert outcome.result is not None
        assert outcome.result.calibration == result.calibration != []
    assert alone[0].calibration != alone[1].calibration


def planned_alone(project: Path, name: str) -> Any:
    options = {"suite": project / "suite.yaml", "gates": project / "gates.yaml"}
    out = project / f"alone-{name}"
    return plan_job(project / "base.yaml", project / f"{name}.yaml", out=out, **options)


def test_each_candidate_gets_the_run_it_would_have_alone(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reference loaded once, and one table of all."""
    loaded = []
    load = loading.load
    monkeypatch.setattr(
        loading, "load", lambda spec, **k: loaded.append(spec.name) or load(spec, **k)
    )
    folder, jobs = planned(several, "candidate", "int8", "copy")
    outcomes, combined = compare_many(folder, jobs, Progress())
    assert loaded == ["base", "int4", "int8", "copy"]
    assert [o.exit_code for o in outcomes] == [1, 1, 0]
    assert combined.exit_code == 1
    beside = one_of(3, jobs[0].policy)
    for outcome, file in zip(outcomes, ("candidate", "int8"), strict=False):
        alone, _ = compare(
            plan_job(
                several / "base.yaml",
                several / f"{file}.yaml",
                suite=several / "suite.yaml",
                gates=several / "gates.yaml",
                out=several / f"alone-{file}",
            )
        )
        assert outcome.result is not None
        assert beside in outcome.result.warnings
        others = [w for w in outcome.result.warnings if w != beside]
        assert stable(outcome.result.model_copy(update={"warnings": others})) == stable(alone)
    page = (folder / "combined.html").read_text()
    assert all(name in page for name in ("int4", "int8", "copy"))
    assert {p.name for p in folder.iterdir()} == {
        "int4",
        "int8",
        "copy",
        "combined.html",
        "combined.json",
    }
    data = json.loads((folder / "combined.json").read_text())
    jsonschema.validate(data, schemas()["combined"])
    assert data == combined.model_dump(mode="json")


def test_a_candidate_that_cannot_be_loaded_does_not_stop_the_others(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told at once, and the exit code is its own if nothing is worse."""
    load = loading.load

    def failing(spec: Any, **more: Any) -> Any:
        if spec.name == "int8":
            raise RunError("int8: not enough memory")
        return load(spec, **more)

    monkeypatch.setattr(loading, "load", failing)
    folder, jobs = planned(several, "int8", "copy")
    told: list[Outcome] = []
    outcomes, combined = compare_many(folder, jobs, Progress(), told.append)
    assert [str(o.error) for o in told] == ["int8: not enough memory"]
    assert [o.exit_code for o in outcomes] == [4, 0]
    assert combined.exit_code == 4
    assert combined.candidates == 2
    assert [c.verdict for c in combined.claims] == [None, "PASS"]
    assert combined.claims[0].reason == "int8: not enough memory"


def test_candidates_that_do_not_fit_beside_the_reference_come_last(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share its hidden states, in batches of the smallest size; the order told is as given."""
    suite = several / "suite.yaml"
    suite.write_text(suite.read_text().replace("probes: [layers]\nlayers: {windows: 4}\n", ""))
    folder, jobs = planned(several, "candidate", "int8", "copy")
    sizes = {"int4": ("in_turn", 3), "int8": ("together", 3), "copy": ("in_turn", 2)}
    monkeypatch.setattr(
        memory,
        "plan_memory",
        lambda reference, candidate, *_, **__: memory.MemoryPlan(*sizes[candidate.name], 128, ()),
    )
    loaded = []
    load = loading.load
    monkeypatch.setattr(
        loading, "load", lambda spec, **k: loaded.append(spec.name) or load(spec, **k)
    )
    outcomes, _ = compare_many(folder, jobs, Progress())
    assert loaded == ["base", "int8", "int4", "copy"]
    assert [o.exit_code for o in outcomes] == [1, 1, 0]
    assert outcomes[0].result is not None
    alone, _ = compare(
        plan_job(
            several / "base.yaml",
            several / "candidate.yaml",
            suite=suite,
            gates=several / "gates.yaml",
            out=several / "alone",
        )
    )
    kl = [
        next(m.value for m in r.metrics if m.id == "kl.mean") for r in (outcomes[0].result, alone)
    ]
    assert kl[0] == pytest.approx(kl[1], rel=1e-5)


@pytest.mark.parametrize(
    ("codes", "expected"), [((0, 3), 3), ((3, 1, 0), 1), ((1, 2), 2), ((2, 4, 1), 4), ((0,), 0)]
)
def test_the_exit_code_is_the_worst(codes: tuple[int, ...], expected: int) -> None:
    """Could not finish, wrong input, failed, inconclusive, passed."""
    assert worst(codes) == expected


def test_every_candidate_is_checked_before_any_model_is_loaded(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one's mistake is found first; nothing is written."""
    monkeypatch.setattr(loading, "load", lambda *a, **k: pytest.fail("loaded"))
    (several / "bad.yaml").write_text("from: base.yaml\nname: bad\nmodel: {path: ./nowhere}\n")
    with pytest.raises(InputError, match="no such file or directory"):
        planned(several, "candidate", "bad")
    (several / "twin.yaml").write_text("from: base.yaml\nname: int4\n")
    with pytest.raises(InputError, match="several candidates are called 'int4'"):
        planned(several, "candidate", "twin")
    assert not (several / "runs").exists()


def test_resuming_leaves_what_is_done_and_measures_the_rest(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new candidate may join."""
    folder, jobs = planned(several, "candidate", "int8")
    first, _ = compare_many(folder, jobs, Progress())
    load = loading.load
    loaded = []
    monkeypatch.setattr(
        loading, "load", lambda spec, **k: loaded.append(spec.name) or load(spec, **k)
    )
    again = planned(several, "candidate", "int8", "copy", out=None, resume=folder)
    second, _ = compare_many(*again, Progress())
    assert loaded == ["base", "copy"]
    assert [o.result for o in second][:2] == [o.result for o in first]
    with pytest.raises(InputError, match="holds no run to resume"):
        planned(several, "candidate", out=None, resume=several)


def test_the_command_prints_one_table(several: Path) -> None:
    """On stdout; -o takes the page; the cache serves the second candidate."""
    done = typed(several, "candidate.yaml", "int8.yaml", "--out", "o", "-o", "all.html", "-v")
    assert done.returncode == 1, done.stderr
    assert "int4" in done.stdout
    assert "int8" in done.stdout
    assert (several / "all.html").read_bytes() == (several / "o" / "combined.html").read_bytes()
    assert done.stderr.count("loading base") == 1
    assert "both models at once; 3 windows at a time" in done.stderr
    assert list((several / "cache").rglob("*.safetensors"))


def test_the_verdicts_are_held_against_the_number_of_candidates(several: Path) -> None:
    """From the records of each run, at the confidence that the number of them takes."""
    done = typed(several, "copy.yaml", "int8.yaml", "--out", "o", "--family-wise", "-q")
    assert done.returncode == 1, done.stderr
    assert "corrected" in done.stdout
    assert "up to 10% of the time" in done.stdout
    data = json.loads((several / "o" / "combined.json").read_text())
    assert (data["candidates"], data["deciding"], data["exit_code"]) == (2, "corrected", 1)
    copy, int8 = data["claims"]
    assert (copy["verdict"], copy["corrected"], copy["confidence"]) == ("PASS", "PASS", 0.975)
    assert (int8["corrected"], int8["confidence"]) == ("FAIL", None)
    assert "one of 2 candidates" in (several / "o" / "copy" / "result.json").read_text()
    again = planned(several, "copy", "int8", out=None, resume=several / "o", family_wise=True)[1][0]
    assert "--family-wise" in str(again.resume_command)
    assert again.deciding.confidence == 0.975
    printed = typed(several, "copy.yaml", "int8.yaml", "--resume", "o", "--format", "json", "-q")
    found = json.loads(printed.stdout)
    assert found["deciding"] == "own"
    assert [r["verdict"] for r in found["results"]] == [c["verdict"] for c in found["claims"]]


def test_what_corrected_verdicts_take_is_asked_before_anything_is_measured(several: Path) -> None:
    """A suite that decides one candidate may be too small for three."""
    gates = several / "gates.yaml"
    gates.write_text("gates: [{metric: nll.exceed_rate, scope: {bound: '1'}, max: 25%}]\n")
    names = ("candidate", "int8", "copy")
    assert planned(several, *names)[1][0].deciding.confidence == 0.95
    with pytest.raises(InputError, match="asks each of 3 candidates"):
        planned(several, *names, family_wise=True)
    assert not (several / "runs").exists()
