"""Comparisons whose candidate llama.cpp runs, as a user types them, with their engine disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.workflow.jobs import COMPARE

# Blocks of one or two documents, slow enough to be hit; patience of two seconds.
PROGRAM = """
import time
import evalharness.engines.child as child
import evalharness.workflow.plan as plan
from evalharness.cli.main import main
from evalharness.run.directory import Run

plan.BLOCK_TOKENS = 60
child.SILENT, child.POLL = 2.0, 0.1
write = Run.write_block
def slow(self, *args):
    write(self, *args)
    time.sleep({pause})
Run.write_block = slow
main()
"""
# What a call of a killed engine, or of one that hangs, may take to end.
PATIENCE = 120


def write_project(folder: Path, gguf: Path, corpus: Path, tasks: str = "") -> None:
    """A GGUF file against itself: in transformers, and in the kernels of llama.cpp."""
    (folder / "base.yaml").write_text(
        f"version: 1\nname: base\nmodel: {{path: {gguf}, dtype: float32, device: cpu}}\n"
    )
    (folder / "candidate.yaml").write_text(
        "from: base.yaml\nname: native\nmodel: {engine: llama.cpp, chunk: 16}\n"
    )
    (folder / "suite.yaml").write_text(
        f"version: 1\nname: tiny\ncorpora:\n  - {{name: texts, path: {corpus}}}\n"
        f"window: {{tokens: 32}}\nbatch_size: 3\n{tasks}"
    )
    (folder / "gates.yaml").write_text(
        "version: 1\nname: tiny\ngates:\n  - {metric: kl.mean, max: 0.1}\n"
        "  - {metric: top1.agreement, min: 1%}\ndefaults: {min_n: 2}\n"
    )


def start(project: Path, *arguments: str, pause: float = 0.1) -> subprocess.Popen[str]:
    """The comparison, with temporary files and a cache of the project's own."""
    program = PROGRAM.format(pause=pause)
    (project / "temporary").mkdir(exist_ok=True)
    own = {"TMPDIR": str(project / "temporary"), "EVALHARNESS_CACHE": str(project / "cache")}
    return subprocess.Popen(
        [sys.executable, "-c", program, *COMPARE, "candidate.yaml", "-q", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project,
        env=os.environ | own,
    )


def engines(process: subprocess.Popen[str]) -> list[int]:
    """The engines' processes that ``process`` started and that live."""
    found = []
    try:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        for pid in map(int, text.split()):
            if b"serve.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    except OSError:  # one of them has just ended
        return []
    return found


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """What ``what`` gives once that is something; None if the process ends before."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if found := what():
            return found
        time.sleep(0.005)
    return None


def disturb(process: subprocess.Popen[str], number: signal.Signals, after: float) -> int | None:
    """Send ``number`` to the engine, so many seconds after it was started; returns its process."""
    found = wait_for(lambda: engines(process), process)
    if found is None:
        return None
    time.sleep(after)
    try:
        os.kill(found[0], number)
    except ProcessLookupError:
        return None
    return int(found[0])


def done(run: Path) -> int:
    """Blocks that are recorded."""
    return len(list((run / "records").glob("done-*")))


def stable(run: Path) -> dict[str, Any]:
    """``result.json`` without what time decides."""
    data = json.loads((run / "result.json").read_text())
    for key in ("created", "cost", "command"):
        data.pop(key)
    data["metrics"] = [m for m in data["metrics"] if not m["id"].startswith("latency")]
    return dict(data)
