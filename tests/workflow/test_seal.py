"""A finished run is judged and rendered again from what it holds."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalharness.errors import InputError, Interrupted
from evalharness.run.directory import Run
from evalharness.spec.result import Result
from evalharness.workflow.compare import compare
from evalharness.workflow.seal import finish
from tests.cli.command import cli
from tests.workflow.jobs import job

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models


def test_gating_again_gives_the_same_result(project: Path) -> None:
    """And another policy another verdict."""
    before, run = compare(job(project))
    policy = project / "loose.yaml"
    policy.write_text(
        "version: 1\ndefaults: {min_n: 2}\ngates:\n  - {metric: kl.mean, max: 1000}\n"
    )
    code, out, _ = cli("gate", run.path, "--gates", policy, "--format", "json")
    assert (code, json.loads(out)["verdict"]) == (0, "PASS")
    code, out, _ = cli("gate", run.path, "--gates", project / "gates.yaml", "--format", "json")
    assert code == 1
    assert json.loads(out)["metrics"] == json.loads(before.model_dump_json())["metrics"]


def test_the_finish_is_repeatable(project: Path) -> None:
    """Judging the same records twice writes the same bytes."""
    _, run = compare(job(project))
    first = (run.path / "result.json").read_bytes()
    finish(run, job(project, "other").policy)
    assert (run.path / "result.json").read_bytes() == first


def test_a_run_moved_away_from_its_policies_is_judged_as_before(project: Path) -> None:
    """It keeps what they came to, and the baseline, and does not miss what they extended."""
    _, first = compare(job(project, "first"))
    stored = project / "stored.json"
    assert cli("baseline", "save", first.path, "--to", stored)[0] == 0
    (project / "own.yaml").write_text(
        "extends: gates.yaml\nbaseline: stored.json\n"
        "defaults: {min_n: 2}\n"
        "gates: [{metric: top1.agreement, min: -0.01, relative_to: baseline, decide: not-worse}]\n"
    )
    before, run = compare(job(project, gates=project / "own.yaml"))
    for name in ("own.yaml", "gates.yaml", "stored.json"):
        (project / name).unlink()
    moved = run.path.rename(project / "elsewhere")
    for _ in range(2):  # the second time by a copy that is decided by itself
        code, out, _ = cli("gate", moved, "--write", "--format", "json")
        after = Result.model_validate_json(out)
        assert (code, after.verdict, after.headline) == (
            before.exit_code,
            before.verdict,
            before.headline,
        )
        assert [(g.id, g.verdict, g.threshold) for g in after.gates] == [
            (g.id, g.verdict, g.threshold) for g in before.gates
        ]


def test_gate_report_and_show_work_without_torch(project: Path) -> None:
    """In a fresh process, from the run directory alone."""
    _, run = compare(job(project))
    code = (
        "import sys\nfrom evalharness.cli.main import app\n"
        "for args in (['gate', {0!r}], ['report', {0!r}], ['show', {0!r}]):\n"
        "    try: app(args)\n"
        "    except SystemExit as e: print('exit', e.code)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    ).format(str(run.path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes = [line for line in done.stdout.splitlines() if line.startswith("exit ")]
    assert codes == ["exit 1", "exit 0", "exit 0"]


def test_a_killed_comparison_is_judged_once_it_is_finished(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then every reader names the command that finishes it, and that command works."""
    monkeypatch.setattr("evalharness.workflow.plan.BLOCK_TOKENS", 60)
    write = Run.write_block

    def dying(self: Run, block: str, tables: Any) -> None:
        write(self, block, tables)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_block", dying)
        with pytest.raises(Interrupted) as stopped:
            compare(job(project))
    resume = str(stopped.value).partition("Resume with: ")[2]
    for command in ("gate", "report", "show"):
        code, _, said = cli(command, project / "run")
        assert (code, said.partition("Finish it: ")[2]) == (2, resume)
    assert not (project / "run/result.json").exists()
    monkeypatch.chdir(project)
    code, out, _ = cli(*shlex.split(resume)[1:], "--format", "json")
    assert json.loads(out)["exit_code"] == code
    assert cli("gate", project / "run")[0] == code


def test_a_policy_that_turns_out_wrong_costs_no_measurement(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured is sealed before it is judged, so that another policy can decide it."""

    def refuse(*_: Any) -> None:
        raise InputError("matches nothing that was measured")

    with monkeypatch.context() as patch:
        patch.setattr("evalharness.workflow.seal.judge", refuse)
        with pytest.raises(InputError, match=r"matches nothing.*evalharness gate .* decides it"):
            compare(job(project))
    code, _, said = cli("show", project / "run")
    assert code == 2
    assert "the run is measured, and has no verdict yet. Decide it: `evalharness gate" in said
    assert cli("gate", project / "run", "--gates", project / "gates.yaml", "--write")[0] == 1
    assert cli("show", project / "run")[0] == 0


def test_a_run_killed_while_its_report_is_put_in_place_is_whole(project: Path) -> None:
    """--resume says that it is complete, and by then it is."""
    _, run = compare(job(project))
    (run.path / "staged").mkdir(exist_ok=True)
    (run.path / "result.json").rename(run.path / "staged" / "result.json")
    with pytest.raises(InputError, match="this run is complete"):
        job(project, None, resume=run.path)
    assert (run.path / "result.json").is_file()
