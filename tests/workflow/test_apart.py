"""Fresh processes: what becomes of the run when one fails, dies, hangs or is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from evalharness.errors import InputError
from evalharness.metrics import Estimates, Evidence
from evalharness.probes.latency import PROBE
from evalharness.progress import Progress
from evalharness.run.directory import Run
from evalharness.spec.model import ModelSpec
from evalharness.testing.records import MANIFEST
from evalharness.workflow import apart
from evalharness.workflow.apart import FreshProcesses
from evalharness.workflow.compare import compare
from evalharness.workflow.plan import plan_job
from tests.workflow.jobs import COMPARE, job, typed

# What stands in for the real process: it reads the request, and then does as the test says.
STAND_IN = """
import json, os, sys, time
asked = json.loads(sys.stdin.readline())
def say(**what): print(json.dumps(what), flush=True)
def write(seconds=1.0):
    import pyarrow as pa, pyarrow.parquet as pq
    from evalharness.run.records import TIMINGS
    row = dict(kind="decode", process=asked["number"], tokens=1, seconds_ref=1.0,
               seconds_cand=seconds + asked["number"] / 100)
    pq.write_table(pa.Table.from_pylist([row], TIMINGS), asked["tables"] + "/timings.parquet")
say(doing="loading base")
"""
WHOLE = "write(); say(done=True)"


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the probe in three stand-ins that do as told; the run, and what was said."""

    def run(does: str, interrupted: Callable[[], None] = lambda: None, **more: Any) -> Any:
        file = tmp_path / "stand_in.py"
        file.write_text(STAND_IN + does)
        monkeypatch.setattr(apart, "COMMAND", (sys.executable, str(file)))
        path = tmp_path / "run"
        record = Run.resume(path, {}) if path.exists() else Run.create(path, dict(MANIFEST))
        console = Console(file=open(tmp_path / "said", "a+"), width=400)  # noqa: SIM115
        fresh = FreshProcesses(
            job=spec_of(),
            mode="together",
            run=record,
            progress=Progress(console, quiet=False),
            interrupted=interrupted,
            loading_s=0.0,
        )
        try:
            fresh.measure(PROBE, own(**more))
        finally:
            record.close()
            console.file.close()
        return record, (tmp_path / "said").read_text()

    return run


def spec_of() -> Any:
    """All that is asked of a job: two models and where they go."""
    spec = ModelSpec.model_validate({"name": "m", "model": {"path": "m", "device": "cpu"}})
    return SimpleNamespace(reference=spec, candidate=spec, device=None)


def own(weights: int = 1000) -> Any:
    """A run of the probe in three processes, its request made already."""
    import torch

    side = SimpleNamespace(
        device=torch.device("cpu"),
        loaded=SimpleNamespace(manifest=SimpleNamespace(resident_bytes=weights)),
    )
    window = SimpleNamespace(ids=torch.arange(3).numpy())
    from evalharness.spec.suite import LatencySettings

    return SimpleNamespace(
        apart=3, reference=side, candidate=side, windows=[window], settings=LatencySettings()
    )


def decoded(run: Run) -> Any:
    """The estimate that the run comes to."""
    return Estimates(Evidence(run)).estimate("latency.decode.ratio", {}, 0.9)


def test_each_process_is_a_block_and_three_are_an_interval(started: Callable[..., Any]) -> None:
    """Nothing is noted as not measured."""
    run, said = started(WHOLE)
    assert run.done() == {"latency-1", "latency-2", "latency-3"}
    found = decoded(run)
    assert found.low is not None
    assert found.clusters == 3
    assert "not_measured" not in run.manifest
    assert said.count("latency, fresh process") == 3


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("say(error='m: no such file')", "failed while loading base: m: no such file"),
        ("print('boom', file=sys.stderr); sys.exit(3)", "(exit code 3); its last words: boom"),
        ("os.kill(os.getpid(), 9)", "(signal 9, Killed: the system may have run out of memory)"),
        ("os.close(1); time.sleep(60)", "closed its output while loading base"),
    ],
)
def test_a_process_that_fails_costs_its_probe_and_nothing_else(
    started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, does: str, why: str
) -> None:
    """The first one's block stays; manifest, warnings and estimate say what failed."""
    monkeypatch.setattr(apart, "CLOSING_S", 0.5)
    run, said = started(f"\nif asked['number'] == 2:\n    {does}\nelse:\n    {WHOLE}")
    assert run.done() == {"latency-1"}
    reason = run.manifest["not_measured"]["latency"]
    assert reason.startswith("process 2 of 3 ")
    assert why in reason
    assert f"latency is not measured: {reason}" in run.manifest["warnings"]
    assert f"latency is not measured: {reason}" in said
    assert decoded(run).reason == f"not measured: {reason}"


def test_what_failed_is_measured_when_the_run_is_taken_up_again(
    started: Callable[..., Any],
) -> None:
    """Only the processes that are missing are started, and nothing is left of the failure."""
    started(f"\nif asked['number'] == 2:\n    sys.exit(1)\nelse:\n    {WHOLE}")
    run, _ = started(f"\nassert asked['number'] != 1\n{WHOLE}")
    assert run.done() == {"latency-1", "latency-2", "latency-3"}
    assert run.manifest["not_measured"] == {}
    assert decoded(run).low is not None
    assert not any("latency" in text for text in run.manifest["warnings"])


def test_a_process_that_hangs_is_ended(
    started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With what it started itself; until then a line now and then says that it goes on."""
    monkeypatch.setattr(apart, "SILENCE_S", 3.0)
    monkeypatch.setattr(apart, "QUIET_S", 0.5)
    pids = tmp_path / "pids"
    does = f"""
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
time.sleep(60)
"""
    run, said = started(does)
    reason = run.manifest["not_measured"]["latency"]
    assert reason == "process 1 of 3 gave no sign of life for 3 s while loading base"
    assert said.count("fresh process 1 of 3: loading base, ") >= 3
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_an_interruption_ends_it_at_once(started: Callable[..., Any], tmp_path: Path) -> None:
    """Ctrl-C while a process measures: it is gone, and what others measured is kept."""
    pids = tmp_path / "pids"
    does = f"""
if asked["number"] == 1:
    {WHOLE}
else:
    open({str(pids)!r}, "w").write(str(os.getpid()))
    time.sleep(60)
"""

    def interrupted() -> None:
        if pids.exists() and pids.read_text():
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        started(does, interrupted)
    assert time.monotonic() - began < 30
    assert gone(int(pids.read_text()))
    run = Run.open(tmp_path / "run")
    assert run.done() == {"latency-1"}
    assert "not_measured" not in run.manifest


def test_models_that_do_not_fit_again_are_not_loaded(started: Callable[..., Any]) -> None:
    """Linux would kill whichever process it likes; the sizes are said, and what to set."""
    run, _ = started("sys.exit(1)", weights=2**60)
    reason = run.manifest["not_measured"]["latency"]
    assert reason.startswith("the two models need 2147483648.00 GiB once more in a fresh process")
    assert "`latency: {processes: 1}`" in reason


def gone(pid: int, patience_s: float = 10.0) -> bool:
    """Whether no such process runs any more, within a few seconds; a zombie does not."""
    for _ in range(1 + int(10 * patience_s)):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_it_dies_with_the_process_that_asked(tmp_path: Path) -> None:
    """Killed outright, so that it can end nothing itself: the real one notices that stdin ends."""
    child = """
import time
from evalharness.workflow import fresh_process
fresh_process._measure = lambda asked, out: time.sleep(600)
fresh_process.main()
"""
    parent = f"""
import json, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdin=subprocess.PIPE, text=True)
child.stdin.write(json.dumps(dict(allow_code=False, confined=False)) + "\\n")
child.stdin.flush()
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", parent])
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.05)
    time.sleep(1)
    alive = not gone(int(pid.read_text()), patience_s=0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert alive
    assert gone(int(pid.read_text()))


@pytest.fixture
def timed(project: Path, tiny: Callable[..., Path]) -> Path:
    """The tiny project with a candidate of its own weights, timed in three processes."""
    (project / "candidate.yaml").write_text(
        f"name: other\nmodel: {{path: {tiny(1)}, dtype: float32, device: cpu}}\n"
    )
    suite = project / "suite.yaml"
    text = suite.read_text().replace("[layers]", "[layers, latency]")
    suite.write_text(text + "latency: {processes: 3, batches: 2, steps: 4}\n")
    (project / "gates.yaml").write_text(
        "defaults: {min_n: 10}\ngates:\n  - {metric: kl.mean, max: 100}\n"
        "  - {metric: latency.decode.ratio, max: 1.0e+6}\n"
        "  - {metric: latency.prefill.ratio, max: 1.0e+6}\n"
    )
    return project


@pytest.mark.e2e
def test_an_interrupted_run_goes_on_with_the_next_process(timed: Path) -> None:
    """Real processes on tiny models: Ctrl-C after the first, resumed to a verdict on all three."""
    out = timed / "run"
    command = [sys.executable, "-m", "evalharness", *COMPARE, "candidate.yaml", "--out", str(out)]
    process = subprocess.Popen(command, cwd=timed, stderr=subprocess.PIPE, text=True)
    first = out / "records" / "done-latency-1"
    while not first.exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Resume with: evalharness compare" in said
    before = first.read_bytes()
    resumed = typed(timed, "candidate.yaml", "--resume", str(out))
    assert resumed.returncode == 0, resumed.stderr
    assert first.read_bytes() == before
    assert "3 gates: 3 PASS" in resumed.stdout
    run = Run.open(out)
    timings = run.table("timings").to_pandas()
    apart = timings[timings["process"].notna()]
    assert sorted(apart["process"].unique()) == [1, 2, 3]
    assert (apart["kind"].value_counts() == 6).all()
    assert "fresh processes" in run.manifest["seconds"]
    estimates = Estimates(Evidence(run))
    for kind in ("prefill", "decode"):
        found = estimates.estimate(f"latency.{kind}.ratio", {}, 0.9)
        assert (found.clusters, found.n) == (3, 6)
        assert found.low is not None
    assert "t over processes" in (out / "report.html").read_text()


@pytest.mark.e2e
def test_a_process_that_cannot_load_a_model_leaves_the_rest(
    timed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidate's file is gone by then: the run ends with a verdict on all else."""
    measure = FreshProcesses.measure

    def moved(self: FreshProcesses, probe: Any, own: Any) -> None:
        lost = self.job.candidate.model_copy(
            update={"model": self.job.candidate.model.model_copy(update={"path": "/nowhere"})}
        )
        object.__setattr__(self, "job", replace(self.job, candidate=lost))
        measure(self, probe, own)

    monkeypatch.setattr(FreshProcesses, "measure", moved)
    result, _ = compare(job(timed))
    by = {g.metric: g for g in result.gates}
    assert by["kl.mean"].verdict == "PASS"
    for metric in ("latency.decode.ratio", "latency.prefill.ratio"):
        assert by[metric].verdict == "INCONCLUSIVE"
        assert "not measured: process 1 of 3 failed while loading other: " in by[metric].reason
    assert result.exit_code == 3
    assert any(w.startswith("latency is not measured: process 1 of 3") for w in result.warnings)


def test_what_it_costs_is_said_before_anything_is_loaded(timed: Path) -> None:
    """Which candidate, how often, and how much is read each time."""
    said = typed(timed, "candidate.yaml", "--dry-run").stdout
    assert "latency  other: 3 fresh processes at the end, each of which loads both" in said
    rows = [line.split() for line in said.splitlines() if line.startswith("latency.")]
    assert [(row[0], *row[-3:]) for row in rows] == [
        ("latency.decode.ratio", "3", "3", "processes"),
        ("latency.prefill.ratio", "3", "3", "processes"),
    ]
    suite = timed / "suite.yaml"
    suite.write_text(suite.read_text().replace("processes: 3, ", ""))
    refused = typed(timed, "candidate.yaml", "--dry-run")
    assert refused.returncode == 2
    assert "gates.yaml:4: gates[1].metric: latency.decode.ratio is decided over 3" in refused.stderr
    gates = timed / "gates.yaml"
    gates.write_text(gates.read_text().replace("1.0e+6", "1.0e+6, severity: warn"))
    said = typed(timed, "candidate.yaml", "--dry-run").stdout
    assert "latency  other: within the run, which decides no gate" in said
    assert "warning: gate latency.decode.ratio is on latency.decode.ratio, which is deci" in said


@pytest.mark.parametrize("count", [0, 2])
def test_two_processes_are_no_choice(timed: Path, count: int) -> None:
    """One is within the run, three are an interval."""
    suite = timed / "suite.yaml"
    suite.write_text(suite.read_text().replace("processes: 3", f"processes: {count}"))
    with pytest.raises(InputError, match=r"suite.yaml:11: latency.processes: "):
        plan_job(timed / "base.yaml", timed / "candidate.yaml", suite=suite)


def test_a_simulated_candidate_is_not_loaded_again_to_be_timed(timed: Path) -> None:
    """Its seconds are those of its reference, which one look in this process shows as well."""
    (timed / "int4.yaml").write_text(
        "from: base.yaml\nname: int4\nsimulate: {weights: {bits: 4, granularity: channel}}\n"
    )
    assert (
        "latency  int4: not measured, a simulated" in typed(timed, "int4.yaml", "--dry-run").stdout
    )
    result, run = compare(job(timed, candidate="int4.yaml"))
    assert not any(name.startswith("latency-") for name in run.done())
    found = [m for m in result.metrics if m.id.startswith("latency")]
    assert {m.value for m in found} == {None}
    assert all("simulated" in (m.reason or "") for m in found)
