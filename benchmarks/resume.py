"""Claim: a run killed at any moment and resumed ends in the result of one that was not.

Runs `evalharness compare` once undisturbed. Then again and again, each time killed (SIGKILL) at a
moment drawn evenly from the time between the run directory's beginning and its end, and taken up
with --resume: its result.json must equal the first one's, timings apart.

    python benchmarks/resume.py [--kills 30] [--limit 16] [--tiny]

``--tiny``: two random two-layer models instead of the demo's. Exits 1 if a result differs.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {
    "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1",
}  # fmt: skip
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
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
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


def wait_for(file: Path, process: subprocess.Popen[bytes]) -> float:
    """Wait until ``file`` is there or the process has ended; returns the time of day."""
    while not file.exists() and process.poll() is None:
        time.sleep(0.01)
    return time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--limit", type=int, default=16, help="documents and items of the demo")
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
                str(demo / "base.yaml"), str(demo / "candidate.yaml"), "--suite", "demo",
                "--gates", "demo", "--limit", str(options.limit),
            ]  # fmt: skip
        process = start([*arguments, "--out", "whole"], folder)
        begun = wait_for(folder / "whole" / "manifest.json", process)
        _, said = process.communicate()
        length = time.monotonic() - begun
        if process.returncode not in (0, 1, 3):
            print(said.decode(), file=sys.stderr)
            return 1
        expected = stable(folder / "whole")
        blocks = json.loads((folder / "whole" / "manifest.json").read_text())["blocks"]
        print(f"undisturbed: {length:.1f} s from loaded models to the report, {blocks} blocks")

        kills = runs = wrong = 0
        while kills < options.kills:
            run = folder / f"run{runs}"
            runs += 1
            process = start([*arguments, "--out", run.name], folder)
            wait_for(run / "manifest.json", process)
            time.sleep(moments.uniform(0, length))
            done = "all"
            if process.poll() is None:
                process.kill()
                process.wait()
                kills += 1
                done = str(len(list((run / "records").glob("done-0*"))))
            if not json.loads((run / "manifest.json").read_text()).get("files"):
                process = start([*arguments, "--resume", run.name], folder)
                _, said = process.communicate()
                if process.returncode not in (0, 1, 3):
                    print(said.decode(), file=sys.stderr)
                    return 1
            same = stable(run) == expected
            wrong += not same
            print(f"kill {kills}: {done} of {blocks} blocks done; resumed: "
                  f"{'equal' if same else 'DIFFERENT'}", flush=True)  # fmt: skip
        print(f"{kills} kills, {wrong} results different")
    print("FAILED" if wrong else "passed")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
