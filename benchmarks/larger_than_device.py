"""A pair larger than the GPU's memory has the same layer report, its weights visiting in turn.

Two random models of a real shape are written to disk and compared by the project's own plan and
pass, own and inherited error included: first with the whole GPU, then with half of the two models'
weights' room left by a ballast. Shown: how each was run, seconds, peak memory, and the
largest relative difference between the two layer reports.

    python benchmarks/larger_than_device.py --shape 8b
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pair_overhead import SHAPES, random_side

from evalharness.progress import Progress
from evalharness.workflow.compare import measure
from evalharness.workflow.plan import plan_job

ROOM = 0.5  # of both models' weights
SUITE = """version: 1
name: ids
corpora: [{name: ids, tokens: ids.jsonl}]
window: {tokens: 512}
probes: [layers]
layers: {windows: 8, errors: [total, own, inherited]}
batch_size: 4
"""
POLICY = "version: 1\nname: any\ngates: [{metric: kl.mean, max: 100}]\n"


def main() -> int:
    """Write the models, compare them twice; 1 when the reports differ or the peak is too high."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--device", default="cuda:0")
    args = parser.parse_args()
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = write(folder, args.shape, device)
        print(f"shape {args.shape}, weights of both {weights / 2**30:.2f} GiB, torch", end=" ")
        print(f"{torch.__version__}, {torch.cuda.get_device_name(device)}")
        whole, _ = compared(folder, "whole", device)
        room = int(ROOM * weights)
        release()
        free = torch.cuda.mem_get_info(device)[0]
        ballast = torch.empty(free - room, dtype=torch.uint8, device=device)
        apart, peak = compared(folder, "offload", device, len(ballast))
    keys = ["error", "layer", "doc"]
    both = whole.merge(apart, on=keys, how="outer", suffixes=("", "_there"), indicator=True)
    missing = int((both["_merge"] != "both").sum())
    moved = (both["err_sq_there"] / both["err_sq"] - 1).abs().max()
    print(f"rows of the layer report {len(whole)}, missing in one {missing}", end=", ")
    print(f"largest relative difference {moved:.2e}; weights' share of the device {ROOM:.0%}")
    return int(missing > 0 or not moved < 1e-2 or peak > room)


def write(folder: Path, shape: str, device: torch.device) -> int:
    """base.yaml, candidate.yaml, their models, suite.yaml and gates.yaml; bytes of the weights."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), unk_token="a"
    )
    random = np.random.default_rng(0)
    vocabulary = SHAPES[shape][-1]
    rows = [list(map(int, random.integers(0, vocabulary, 513))) for _ in range(16)]
    (folder / "ids.jsonl").write_text(
        "".join(f'{{"id": "{i}", "tokens": {row}}}\n' for i, row in enumerate(rows))
    )
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "gates.yaml").write_text(POLICY)
    model = random_side(shape, device, 0).loaded.model
    total = 0
    for name in ("base", "candidate"):
        if name == "candidate":
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(1 + 0.02 * torch.randn_like(p))
        model.save_pretrained(folder / name)
        words.save_pretrained(folder / name)
        total += sum(p.numel() * p.element_size() for p in model.parameters())
        (folder / f"{name}.yaml").write_text(
            f"version: 1\nname: {name}\nmodel: {{path: {name}, dtype: bfloat16}}\n"
        )
    return total


def compared(
    folder: Path, out: str, device: torch.device, ballast: int = 0
) -> tuple[pd.DataFrame, int]:
    """The layers' records of one comparison, and its peak memory beside the ballast."""
    release()
    torch.cuda.reset_peak_memory_stats(device)
    job = plan_job(
        folder / "base.yaml",
        folder / "candidate.yaml",
        suite=folder / "suite.yaml",
        gates=folder / "gates.yaml",
        out=folder / out,
        device=str(device),
    )
    start = time.perf_counter()
    run = measure(job, Progress(quiet=True))
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated(device) - ballast
    log = run.path.joinpath("log.jsonl").read_text().splitlines()
    said = [line for line in log if "at a time" in line]
    found = run.table("layers", None).to_pandas()
    run.close()
    print(f"{out:8} {seconds:7.1f} s, peak {peak / 2**30:6.2f} GiB  {said[0] if said else ''}")
    return found, peak


def release() -> None:
    """Give everything that is not held back to the device."""
    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    raise SystemExit(main())
