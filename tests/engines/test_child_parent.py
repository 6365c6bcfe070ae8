"""An engine's process beside the process that started it: deaths, signals and pauses of that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engines.processes import alive

DRIVER = Path(__file__).with_name("numpy_driver.py")
PARENT = """
import sys, time
from pathlib import Path
from evalharness.engines.child import Child

child = Child("toy", Path({driver!r}), {{"chunk": 8, "pause": {pause}}})
print(child.pid, flush=True)
{then}
"""


def parent(then: str, pause: float = 0) -> tuple[subprocess.Popen[str], int]:
    """A process with an engine, in a group of their own; and the engine's number."""
    program = PARENT.format(driver=str(DRIVER), pause=pause, then=then)
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("then", ["time.sleep(60)", "list(child.rows(list(range(200)), 0))"])
def test_the_process_dies_with_its_parent(then: str) -> None:
    """Idle or at work, when the parent has no time to say so."""
    process, pid = parent(then, pause=0.5)
    assert alive(pid)
    process.kill()
    process.wait()
    end = time.monotonic() + 3
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_group_are_the_parents_to_handle(number: signal.Signals) -> None:
    """It may still finish what it is at."""
    then = (
        f"import signal\nsignal.signal({int(number)}, lambda *_: print('asked', flush=True))\n"
        "time.sleep(0.1)\nprint('ready', flush=True)\ntime.sleep(0.4)\n"
        "print(sum(map(len, child.rows(list(range(20)), 0))))"
    )
    process, pid = parent(then)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, number)
    assert process.communicate()[0].split() == ["asked", "20"]
    assert process.returncode == 0
    assert not alive(pid)


def test_a_pause_of_both_is_no_silence() -> None:
    """Ctrl-Z stops the whole group, for longer than a process may be silent."""
    then = (
        "import evalharness.engines.child as module\nmodule.SILENT, module.POLL = 0.5, 0.1\n"
        "print(sum(map(len, child.rows(list(range(24)), 0))))"
    )
    process, _ = parent(then, pause=0.2)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(0.8)
    os.killpg(process.pid, signal.SIGCONT)
    assert process.communicate(timeout=30)[0].split() == ["24"]
