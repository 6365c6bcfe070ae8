"""`gate` and `report` on a run of a million token records: seconds, peak memory, and no torch.

    python benchmarks/gate_speed.py [--tokens 1000000] [--documents 5000]

Writes synthetic records of a pair, then runs both commands in fresh processes. Exits 1 where one
takes over 2 s of CPU or 1 GiB, or imports torch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from evalharness.gates import load_policy
from evalharness.run import records
from evalharness.run.directory import Run
from evalharness.spec.result import CompressionManifest
from evalharness.workflow.seal import finish

POLICY = """version: 1
gates:
  - {metric: perplexity.ratio, max: 1.05}
  - {metric: kl.mean, max: 0.06}
  - {metric: kl.p99, max: 0.8, severity: warn}
  - {metric: top1.agreement, min: 80%}
  - {metric: calibration.score.shift, max: 0.05}
"""


def synthetic(path: Path, tokens: int, documents: int) -> None:
    """Write a run of so many tokens in blocks of whole documents."""
    random = np.random.default_rng(0)
    side = CompressionManifest(
        name="x",
        source="synthetic",
        architecture="None",
        dtype="bfloat16",
        parameters=1000,
        bits_per_weight=16,
        weight_bytes=2000,
        groups=[],
        fingerprint="a",
        tokenizer_fingerprint="t",
    )
    smaller = side.model_copy(
        update={"bits_per_weight": 4.5, "weight_bytes": 562, "fingerprint": "b"}
    )
    run = Run.create(
        path,
        {
            "suite": {"name": "synthetic", "slices": []},
            "created": "2026-01-01T00:00:00+00:00",
            "sides": {
                "reference": {"manifest": side.model_dump()},
                "candidate": {"manifest": smaller.model_dump()},
            },
            "candidate": {"simulate": {}},
            "token_stream": "s",
            "tokenizers": ["t"],
            "seconds": {},
        },
    )
    per = tokens // documents
    step = max(1, 16384 // per)
    for block, start in enumerate(range(0, documents, step)):
        numbers = np.arange(start, min(documents, start + step))
        n = len(numbers) * per
        doc = np.repeat(numbers, per).astype(np.int32)
        effect = np.repeat(0.03 + 0.02 * random.standard_normal(len(numbers)), per)
        nll = random.gamma(1.0, 2.5, n)
        kl = random.gamma(0.7, 0.06, n)
        conf = random.beta(2, 2, n)
        table = {
            "doc": doc,
            "window": doc,
            "position": np.tile(np.arange(per), len(numbers)),
            "token": random.integers(0, 1000, n),
            "nll_ref": nll,
            "nll_cand": nll + effect + 0.2 * random.standard_normal(n),
            "kl": kl,
            "kl_reverse": kl,
            "total_variation": np.sqrt(kl / 2).clip(max=1),
            "entropy_ref": nll,
            "entropy_cand": nll,
            "conf_ref": conf,
            "conf_cand": np.clip(conf + 0.02 * random.standard_normal(n), 0, 1),
            "argmax_ref": np.where(random.random(n) < conf, 1, 2),
            "argmax_cand": np.ones(n),
            "top5_overlap": np.full(n, 4),
            "max_abs": kl,
            "max_abs_token": np.zeros(n),
            "half_range": 5 * kl,
        }
        texts = {
            "doc": numbers,
            "corpus": ["c"] * len(numbers),
            "id": [str(i) for i in numbers],
            "attributes": ["{}"] * len(numbers),
            "tokens": np.full(len(numbers), per),
            "scored_tokens": np.full(len(numbers), per),
            "bytes_ref": np.full(len(numbers), 4 * per),
            "bytes_cand": np.full(len(numbers), 4 * per),
            "nll_ref": np.add.reduceat(nll, np.arange(0, n, per)),
            "nll_cand": np.add.reduceat(table["nll_cand"], np.arange(0, n, per)),
        }
        run.write_block(
            f"{block:05d}",
            {
                name: pa.table(
                    [
                        pa.array(columns[c]).cast(records.SCHEMAS[name].field(c).type)
                        for c in records.SCHEMAS[name].names
                    ],
                    schema=records.SCHEMAS[name],
                )
                for name, columns in (("tokens", table), ("documents", texts))
            },
        )
    run.seal()
    run.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--documents", type=int, default=5_000)
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        run, policy = Path(folder) / "run", Path(folder) / "gates.yaml"
        policy.write_text(POLICY)
        synthetic(run, arguments.tokens, arguments.documents)
        finish(Run.open(run), load_policy(policy))  # what `compare` ends with
        for command in (
            ["gate", str(run), "--gates", str(policy), "--write"],
            ["report", str(run)],
        ):
            code = (
                f"import sys; sys.argv[1:] = {command!r}\nfrom evalharness.cli.main import main\n"
                "try: main()\nexcept SystemExit: pass\n"
                # Not ru_maxrss, which starts from the parent's peak.
                "peak = next(x for x in open('/proc/self/status') if x.startswith('VmHWM'))\n"
                "print(int('torch' in sys.modules), peak.split()[1], file=sys.stderr)"
            )
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            wall = time.perf_counter() - started
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            torch, peak = (int(x) for x in done.stderr.split()[-2:])
            row = {
                "command": command[0],
                "wall_s": round(wall, 2),
                "cpu_s": round(cpu, 2),
                "peak_mib": round(peak / 1024),
                "torch": bool(torch),
            }
            print(json.dumps(row))
            failed |= cpu > 2 or peak > 1024 * 1024 or bool(torch)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
