"""A comparison whose engine is killed or hangs on its way: one message, and nothing is lost."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.engines.conftest import tiny, write_gguf
from tests.engines.processes import alive
from tests.pair.tasks.lm_sides import TASKS
from tests.workflow.engine_runs import (
    disturb,
    done,
    engines,
    stable,
    start,
    wait_for,
    write_project,
)

pytestmark = pytest.mark.e2e  # whole comparisons of a tiny model


@pytest.fixture
def native_project(tmp_path: Path, corpus: Path, request: pytest.FixtureRequest) -> Path:
    """The tiny model's Q8_0 file in transformers and in llama.cpp, and an undisturbed run."""
    write_gguf(tmp_path / "tiny.gguf", tiny(), "Q8_0")
    tasks = [f"  - {{path: {TASKS / name}, limit: 5}}\n" for name in getattr(request, "param", ())]
    write_project(
        tmp_path, tmp_path / "tiny.gguf", corpus, "tasks:\n" * any(tasks) + "".join(tasks)
    )
    process = start(tmp_path, "--out", "whole", pause=0)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert list((tmp_path / "temporary").iterdir()) == []
    return tmp_path


def test_an_engine_that_is_killed_or_hangs_costs_a_block(native_project: Path) -> None:
    """Exit 4 and one message each time; in the end the result of a run that was left alone."""
    chance = random.Random(0)
    faults = [
        (signal.SIGKILL, "was killed by SIGKILL"),
        (signal.SIGSTOP, "gave no sign of life for 2 s while"),
        (signal.SIGSEGV, "was killed by SIGSEGV"),
    ]
    before = 0
    for number, said in faults:
        taken_up = ("--resume", "run") if before else ("--out", "run")
        process = start(native_project, *taken_up)
        run = native_project / "run"
        wait_for(lambda run=run, before=before: done(run) > before, process)
        pid = disturb(process, number, chance.uniform(0, 0.2))
        assert pid is not None
        _, err = process.communicate()
        assert process.returncode == 4, err
        assert "Traceback" not in err
        assert err.count("native: its engine ") == 1
        assert f"native: its engine {said}" in err
        assert "The engine's log: " in err
        assert "--resume run" in err
        assert not alive(pid)
        assert engines(process) == []
        assert done(run) > before
        assert not (run / "result.json").exists()
        before = done(run)
    process = start(native_project, "--resume", "run", pause=0)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert stable(native_project / "run") == stable(native_project / "whole")
    # The logs of the three, which their messages name.
    assert len(list((native_project / "temporary").glob("evalharness-engine-*.log"))) == 3


@pytest.mark.parametrize("native_project", [("choose.yaml", "write.yaml")], indirect=True)
def test_an_engine_that_dies_among_tasks_costs_one_of_them(native_project: Path) -> None:
    """Choices are scored, and the engine dies before it generates."""
    run = native_project / "run"
    process = start(native_project, "--out", "run", pause=0.3)
    wait_for(lambda: done(run) == 13, process)  # twelve texts and the first task
    pid = disturb(process, signal.SIGKILL, 0)
    assert pid is not None
    _, err = process.communicate()
    assert process.returncode == 4, err
    assert "Traceback" not in err
    assert err.count("native: its engine was killed by SIGKILL") == 1
    assert "write" in err  # the task that it was at
    assert done(run) == 13
    process = start(native_project, "--resume", "run", pause=0)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert stable(run) == stable(native_project / "whole")


def test_a_comparison_that_is_killed_takes_its_engine_with_it(native_project: Path) -> None:
    """And is taken up like any other."""
    process = start(native_project, "--out", "run")
    run = native_project / "run"
    wait_for(lambda: done(run), process)
    (pid,) = engines(process)
    process.kill()
    process.communicate()
    process = start(native_project, "--resume", "run", pause=0)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert not alive(pid)
    assert stable(run) == stable(native_project / "whole")
