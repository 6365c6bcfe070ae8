"""Claim: an engine that dies or hangs at any moment costs a block at most, and never the run.

Runs `evalharness compare` on a GGUF file against itself in the kernels of llama.cpp, once
undisturbed. Then pass after pass: the engine's process is killed (SIGKILL) or stopped for good
(SIGSTOP), every time at a moment drawn evenly from what the engine in hand is expected to live, and
the run taken up with --resume. Each must end with exit code 4, one message and no traceback, and
leave no process; the pass that is at last left alone must end in the
first run's result.json, timings aside.

    python benchmarks/engine_faults.py [--faults 20] [--chain 4] [--seed 0]

A tiny model of random weights and twelve short texts; a silence of two seconds counts as a hang.
Exits 1 if anything above does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
os.environ["PYTHONPATH"] = os.pathsep.join(
    p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p
)

from tests.conftest import TEXT  # noqa: E402
from tests.engines.conftest import tiny, write_gguf  # noqa: E402
from tests.engines.processes import alive  # noqa: E402
from tests.workflow.engine_runs import (  # noqa: E402
    disturb,
    done,
    engines,
    stable,
    start,
    wait_for,
    write_project,
)

KINDS = {signal.SIGKILL: "killed", signal.SIGSTOP: "stopped"}


def project(folder: Path) -> None:
    """The model, twelve texts, and all that a comparison names."""
    write_gguf(folder / "tiny.gguf", tiny(), "Q8_0")
    texts = folder / "texts.jsonl"
    rows = [{"id": f"d{i}", "text": TEXT[i:] + TEXT[: 20 + 9 * i]} for i in range(12)]
    texts.write_text("".join(json.dumps(r) + "\n" for r in rows))
    write_project(folder, folder / "tiny.gguf", texts)


def undisturbed(folder: Path) -> float:
    """Make the run that all others must equal; returns how long its engine lived, in seconds."""
    process = start(folder, "--out", "whole")
    (pid,) = wait_for(lambda: engines(process), process)
    began = time.monotonic()
    while alive(pid):
        time.sleep(0.01)
    life = time.monotonic() - began
    _, said = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the undisturbed run ended with {process.returncode}:\n{said}")
    return life


def begun(run: Path) -> bool:
    """Whether anything is there to be taken up."""
    return (run / "manifest.json").exists()


def wrong_with(process: subprocess.Popen[str], pid: int, run: Path, said: str) -> list[str]:
    """What is not as it should be about a run whose engine was disturbed."""
    found = []
    if process.returncode != 4:
        found.append(f"exit {process.returncode}")
    if "Traceback" in said or said.count("its engine ") != 1:
        found.append("not one message")
    if begun(run) and "--resume" not in said:
        found.append("no way on")
    if alive(pid) or engines(process):
        found.append("a process is left")
    return [f"{text}: {said[-800:]}" for text in found]


def main() -> int:
    """Disturb, take up, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--chain", type=int, default=4, help="of a pass, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    wrong: list[str] = []
    count = dict.fromkeys(KINDS, 0)
    kept: list[int] = []
    seconds: list[float] = []
    passes = same = late = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder)
        life = undisturbed(folder)
        print(f"undisturbed: the engine lives {life:.1f} s, {done(folder / 'whole')} blocks")
        while sum(count.values()) < options.faults:
            passes += 1
            run = folder / f"run{passes}"
            for _ in range(min(options.chain, options.faults - sum(count.values()))):
                kind = chance.choice(list(KINDS))
                left = life * (1 - done(run) / max(1, done(folder / "whole")))
                process = start(folder, "--resume" if begun(run) else "--out", run.name)
                pid = disturb(process, kind, chance.uniform(0, left))
                at = time.monotonic()
                _, said = process.communicate()
                if pid is None or process.returncode == 0:  # it was done before
                    late += 1
                    break
                seconds.append(time.monotonic() - at)
                count[kind] += 1
                kept.append(done(run))
                wrong += wrong_with(process, pid, run, said)
                print(f"{KINDS[kind]} with {kept[-1]} blocks: {said.splitlines()[0][:110]}")
            if not (run / "result.json").exists():
                process = start(folder, "--resume" if begun(run) else "--out", run.name, pause=0)
                _, said = process.communicate()
            equal = process.returncode == 0 and stable(run) == stable(folder / "whole")
            same += equal
            if not equal:
                wrong.append(f"pass {passes} ends in another result: {said[-800:]}")
    print(
        f"{count[signal.SIGKILL]} kills and {count[signal.SIGSTOP]} hangs in {passes} passes "
        f"({late} moments after the end); blocks kept {min(kept)} to {max(kept)}; "
        f"the command ended {min(seconds):.1f} to {max(seconds):.1f} s later; "
        f"{same} of {passes} results equal"
    )
    for text in wrong:
        print(f"WRONG: {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
