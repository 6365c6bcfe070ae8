"""Claim: a run killed at any moment, any number of times, ends in the result of one that was not.

Runs `evalharness compare` once undisturbed and notes when each block was done. Then pass after
pass: up to --chain kills (SIGKILL) each, every one at a moment drawn evenly from what the process
in hand is expected to live, from its start (imports, loading) to the report, and each taken up with
--resume. The last kill of every other pass waits for the report: it comes while its files are
written. The pass that is at last left alone must end in the first run's result.json, timings aside.

    python benchmarks/resume.py [--kills 30] [--chain 5] [--limit 24] [--tiny]

The demo's pair, suite (layer probe and task) and policy; ``--tiny``: two random two-layer models.
Exits 1 if a result differs or a process does not end as the first one did.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalharness.run.finished import is_judged

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}
TIMINGS = ("created", "cost", "command")


def stable(run: Path) -> dict[str, Any]:
    """``result.json`` without what time decides."""
    data: dict[str, Any] = json.loads((run / "result.json").read_text())
    for key in TIMINGS:
        data.pop(key)
    data["metrics"] = [m for m in data["metrics"] if not m["id"].startswith("latency")]
    return data


def tiny_project(folder: Path) -> list[str]:
    """Write two tiny models, texts, a suite and a policy; returns the command's arguments."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sys.path.insert(0, str(ROOT))
    from tests.conftest import TEXT, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [{"id": i, "text": TEXT[i % 90 :] + TEXT[: 3 * i]} for i in range(160)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "base.yaml").write_text(
        "name: base\nmodel: {path: ./model, dtype: float32, device: cpu}\n"
    )
    (folder / "candidate.yaml").write_text(
        "from: base.yaml\nname: int4\nsimulate: {weights: {bits: 4, granularity: channel}}\n"
    )
    (folder / "suite.yaml").write_text(
        "name: tiny\ncorpora: [{name: texts, path: texts.jsonl}]\nwindow: {tokens: 64}\n"
        "probes: [layers]\nlayers: {windows: 16, linears: false}\n"
    )
    (folder / "gates.yaml").write_text("version: 1\ngates: [{metric: kl.mean, max: 0.1}]\n")
    return ["base.yaml", "candidate.yaml", "--suite", "suite.yaml", "--gates", "gates.yaml"]


def start(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start one comparison in ``folder``."""
    command = [sys.executable, "-m", "evalharness", "compare", *arguments, "-q"]
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


@dataclass(frozen=True)
class Whole:
    """What the undisturbed run took, in seconds from its start."""

    done: dict[str, float]  # when each block was there
    judging: float  # when the report's files began to be written
    end: float  # when it was complete

    def life(self, done: set[str]) -> float:
        """How long a process may be expected to live that finds these blocks done."""
        times = sorted(self.done.items(), key=lambda item: item[1])
        began = [time for _, time in times[:-1]]
        # The first block's time holds imports, loading and the noise floor: paid every time.
        spared = sum(t - b for (name, t), b in zip(times[1:], began, strict=True) if name in done)
        return self.end - spared


def stage(run: Path, whole: Whole) -> str:
    """How far a run is, in words."""
    if not (run / "manifest.json").exists():
        return "before its manifest"
    done = set(finished(run))
    if done >= set(whole.done):
        files = ("policy.yaml", "result.json", "report.html", "summary.md", "junit.xml")
        there = [f for f in files if (run / f).exists()]
        return f"all blocks done, {', '.join(there) or 'nothing of the report'} written"
    return f"{len(done)} of {len(whole.done)} blocks done"


def finished(run: Path) -> dict[str, float]:
    """Each block that is done, and when."""
    return {
        p.name.removeprefix("done-"): p.stat().st_mtime for p in (run / "records").glob("done-*")
    }


def sealed(run: Path) -> bool:
    """Whether the run is complete: measured, and judged."""
    file = run / "manifest.json"
    return file.exists() and is_judged(json.loads(file.read_text()))


def undisturbed(arguments: list[str], folder: Path) -> tuple[Whole, int]:
    """The run that nobody kills, and its exit code."""
    run, begun = folder / "whole", time.time()
    process = start([*arguments, "--out", "whole"], folder)
    _, said = process.communicate()
    if not sealed(run):
        sys.exit(said.decode())
    done = {name: at - begun for name, at in finished(run).items()}
    judging = (run / "policy.yaml").stat().st_mtime - begun
    sealing = (run / "manifest.json").stat().st_mtime - begun
    return Whole(done, judging, sealing), process.returncode


def kill(process: subprocess.Popen[bytes], run: Path, after: float, reporting: bool) -> bool:
    """Kill ``process`` in ``after`` seconds; ``reporting``: from when its report is begun."""
    while reporting and not (run / "policy.yaml").exists() and process.poll() is None:
        time.sleep(0.002)
    try:
        process.wait(after)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--chain", type=int, default=5, help="kills of one pass, at most")
    parser.add_argument("--limit", type=int, default=24, help="documents and items of the demo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.tiny:
            arguments = tiny_project(folder)
        else:
            demo = ROOT / "suites" / "demo"
            arguments = [
                str(demo / "base.yaml"),
                str(demo / "candidate.yaml"),
                "--suite",
                "demo",
                "--gates",
                "demo",
                "--limit",
                str(options.limit),
            ]
        whole, code = undisturbed(arguments, folder)
        expected = stable(folder / "whole")
        print(f"undisturbed: {whole.end:.1f} s, {len(whole.done)} blocks, exit {code}", flush=True)

        kills = passes = wrong = 0
        while kills < options.kills:
            run = folder / f"run{passes}"
            # The moment that is hardest to hit by chance.
            reporting = passes % 2 == 1
            passes += 1
            left = min(options.chain, options.kills - kills)
            while not sealed(run):
                there = (run / "manifest.json").exists()
                process = start([*arguments, "--resume" if there else "--out", run.name], folder)
                if not left:
                    _, said = process.communicate()
                    if process.returncode != code:
                        print(f"exit {process.returncode}: {said.decode()}", file=sys.stderr)
                        return 1
                    break
                last = reporting and left == 1
                length = whole.end - whole.judging if last else whole.life(set(finished(run)))
                after = moments.uniform(0, length)
                if kill(process, run, after, last):
                    kills += 1
                    left -= 1
                    print(
                        f"kill {kills}: pass {passes}, {after:.1f} s after "
                        f"{'the report was begun' if last else 'the start'}: {stage(run, whole)}",
                        flush=True,
                    )
            same = stable(run) == expected
            wrong += not same
            print(f"pass {passes}: {'equal' if same else 'DIFFERENT'}", flush=True)
        print(f"{kills} kills in {passes} passes, {wrong} results different")
    print("FAILED" if wrong else "passed")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
