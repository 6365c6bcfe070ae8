"""Does own error name the damaged module, and does a bisect return exactly the damaged set?

Copies of a model, first rounded to 8 bits so that every linear differs a little, then with 1, 2 or
5 random linears damaged: noise at a set SQNR, one output channel scaled, 2-bit rounding, the head
zeroed. Everything that decides what the right answer is happens before the search:

    policy    kl.mean at most SLACK × the upper bound that the undamaged copy reaches, so that the
              copy passes as it is
    planted   each damage is made stronger (noise louder, the channel's factor larger, the rounding
              coarser) until the reference with this one damaged module, and no other change, has
              BREAKS × the limit; a module that no strength makes matter is drawn again

So a set that leaves a damaged module in fails, the damaged set alone passes, and it is the one
smallest set. No seed is left out. For each seed: whether the damaged linears rank first by own
error, and by total error; how many undamaged linears total error puts among the first, and how
many of those lie behind a damaged one; and whether the search of `evalharness bisect` (order of the
gradient score, gallop, bisect, delete, each set decided by the policy's gates) returns exactly the
damaged set, and whether that repair passes on documents that the search did not see.

    python benchmarks/planted_damage.py --model smollm2 --seeds 30
    python benchmarks/planted_damage.py --model tiny --seeds 30
    python benchmarks/planted_damage.py --quick
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evalharness.bisect.rank import gradient_scores
from evalharness.bisect.search import TrialLog
from evalharness.bisect.trials import Trials
from evalharness.data.documents import Document
from evalharness.data.windows import Window
from evalharness.engines.loading import load
from evalharness.engines.rounding import quantize_weight
from evalharness.gates import load_policy
from evalharness.pair.matching import match
from evalharness.pair.side import Side
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.probes.layer_watcher import LayerWatcher
from evalharness.run import assets
from evalharness.spec.model import ModelSpec, load_model_spec
from evalharness.spec.policy import Policy
from evalharness.spec.simulate import WeightQuantizer
from evalharness.spec.suite import NoiseFloor
from evalharness.workflow.noise_floor import noise_floor

# The damages, each in strengths that are tried in turn.
DAMAGES: dict[str, tuple[Any, ...]] = {
    "noise": (3.0, 0.0, -3.0, -6.0, -9.0),  # SQNR in dB of the noise against the weight
    "channel": (8.0, 32.0, 128.0, 512.0, 2048.0),  # factor of the row with the largest norm
    "rounding": ("channel", "tensor"),  # what shares a scale, at 2 bits
    "head": (0.0,),
}
COUNTS = (1, 2, 5)
DOCUMENTS, TOKENS = 5, 64  # to search on, and as many held out
SLACK = 1.5
BREAKS = 2.0


def main() -> int:
    """Run the seeds, print a line each and the shares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=("tiny", "smollm2"), default="tiny")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="6 seeds of the tiny model")
    args = parser.parse_args()
    if args.quick:
        args.model, args.seeds = "tiny", 6
    torch.set_num_threads(1)
    bench = Bench(args.model)
    print(json.dumps(bench.facts), flush=True)
    rows = []
    for seed in range(args.seeds):
        row = bench.trial(seed, COUNTS[seed % 3], list(DAMAGES)[seed // 3 % 4])
        rows.append(row)
        print(json.dumps(row), flush=True)
    return summary(rows)


def summary(rows: list[dict[str, Any]]) -> int:
    """Print the shares over all seeds; 1 when one is below its target."""
    failed = False
    for key, wanted in (
        ("own_first", 0.95),
        ("total_first", None),
        ("exact", 0.90),
        ("passes", 0.90),
    ):
        share = sum(r[key] for r in rows) / len(rows)
        failed |= wanted is not None and share < wanted
        target = "" if wanted is None else f"  (wanted: at least {wanted:.0%})"
        print(f"{key:<12} {sum(r[key] for r in rows)}/{len(rows)} = {share:.0%}{target}")
    blamed, behind = (sum(r[k] for r in rows) for k in ("blamed", "blamed_behind"))
    print(
        f"undamaged modules among the first by total error: {blamed}, {behind} of them behind a "
        "damaged one"
    )
    print(
        f"evaluations: median {np.median([r['evaluations'] for r in rows]):.0f}, "
        f"most {max(r['evaluations'] for r in rows)}; {sum(r['drawn_again'] for r in rows)} "
        f"modules drawn again; {time.process_time() / 60:.1f} min of CPU"
    )
    return int(failed)


class Bench:
    """A reference, its 8-bit copy, a few documents, and the policy that the copy just meets."""

    def __init__(self, model: str) -> None:
        spec = tiny_spec() if model == "tiny" else smollm2_spec()
        weights = {"bits": 8, "granularity": "group", "group_size": 32}
        rounded = {"simulate": {"weights": weights}}
        both = [spec, ModelSpec.model_validate(spec.model_dump() | rounded | {"name": "copy"})]
        self.reference, self.candidate = (Side(load(s, device="cpu")) for s in both)
        pairs, _ = match(self.reference.model, self.candidate.model)
        self.linears = {p.name: p for p in pairs if p.kind == "linear"}
        self.depth = {n: i for i, n in enumerate(self.linears)}  # in the order of the model
        self.documents = [
            Document(i, "c", str(i), ids, None, {}) for i, ids in enumerate(self._texts(model))
        ]
        windows = [
            Window(d.number, d.number, 0, d.tokens, 0, len(d.tokens) - 1) for d in self.documents
        ]
        self.search, self.held_out = windows[:DOCUMENTS], windows[DOCUMENTS:]
        floor = noise_floor(self.reference, self.documents, windows, 2, NoiseFloor()).values
        self.manifest: dict[str, Any] = {"noise_floor": floor}
        unlimited = _policy(1e9)
        both_sets = [self.trials(s, unlimited) for s in (self.search, self.held_out)]
        bounds = [t.decide(()).gates[0].bound or 0.0 for t in both_sets]
        self.limit = SLACK * max(bounds)
        self.policy = _policy(self.limit)
        self.trial_search, self.trial_held_out = (
            self.trials(s, self.policy) for s in (self.search, self.held_out)
        )
        verdicts = [t.decide(()).verdict for t in (self.trial_search, self.trial_held_out)]
        assert verdicts == ["PASS", "PASS"]
        self.facts = {
            "kl_noise_floor": floor.get("kl.mean"),
            "kl_copy_upper": bounds,
            "limit": self.limit,
            "linears": len(self.linears),
        }

    def _texts(self, model: str) -> list[np.ndarray]:
        if model == "tiny":
            random_ids = np.random.default_rng(0)
            return [random_ids.integers(1, 300, TOKENS) for _ in range(2 * DOCUMENTS)]
        from pydoc_data.topics import topics

        tokenizer = self.reference.loaded.tokenizer
        found = (np.array(tokenizer(t)["input_ids"][:TOKENS]) for t in topics.values())
        return [ids for ids in found if len(ids) == TOKENS][: 2 * DOCUMENTS]

    def trials(self, windows: list[Window], policy: Policy) -> Trials:
        """What decides ``policy`` on ``windows``."""
        return Trials(
            self.reference,
            self.candidate,
            pairs=self.linears.values(),
            documents=self.documents,
            windows=windows,
            policy=policy,
            manifest=dict(self.manifest),
            batch_size=DOCUMENTS,
        )

    def trial(self, seed: int, count: int, damage: str) -> dict[str, Any]:
        """Damage, rank, repair, undo."""
        started = time.process_time()
        kept = {n: p.candidate.weight.detach().clone() for n, p in self.linears.items()}
        # Which modules have changed since a pass that is kept is not known here.
        self.trial_search, self.trial_held_out = (
            self.trials(s, self.policy) for s in (self.search, self.held_out)
        )
        try:
            planted, again = self.plant(seed, 1 if damage == "head" else count, damage, kept)
            row: dict[str, Any] = {
                "seed": seed,
                "damage": damage,
                "planted": planted,
                "drawn_again": again,
            }
            own, total = self.errors()
            for key, found in (("own_first", own), ("total_first", total)):
                first = sorted(found, key=lambda n: -found[n])[: len(planted)]
                row[key] = set(first) == set(planted)
            blamed = set(sorted(total, key=lambda n: -total[n])[: len(planted)]) - set(planted)
            first = min(self.depth[n] for n in planted)
            row["blamed"] = len(blamed)
            row["blamed_behind"] = sum(self.depth[n] > first for n in blamed)
            row |= self.repair(list(planted))
        finally:
            with torch.no_grad():
                for name, weight in kept.items():
                    self.linears[name].candidate.weight.copy_(weight)
        row["seconds"] = round(time.process_time() - started, 1)
        return row

    def plant(
        self, seed: int, count: int, damage: str, kept: dict[str, torch.Tensor]
    ) -> tuple[dict[str, Any], int]:
        """Damage ``count`` modules, each until it alone breaks the limit; their strengths."""
        rng = random.Random(seed)
        names = [n for n in self.linears if n != self.reference.head_name]
        order = [self.reference.head_name] if damage == "head" else rng.sample(names, len(names))
        planted: dict[str, Any] = {}
        again = 0
        for name in order:
            if len(planted) == count:
                break
            weight = self.linears[name].candidate.weight
            for strength in DAMAGES[damage]:
                with torch.no_grad():
                    weight.copy_(kept[name])
                torch.manual_seed(seed)
                hurt(weight, damage, strength)
                if self.alone(name) >= BREAKS * self.limit:
                    planted[name] = strength
                    break
            else:
                again += 1
                with torch.no_grad():
                    weight.copy_(kept[name])
        assert len(planted) == count
        return planted, again

    def alone(self, name: str) -> float:
        """Mean KL of the reference with this one module of the candidate in it."""
        others = [n for n in self.linears if n != name]
        return float(np.mean(self.trial_search.tables(others)["tokens"]["kl"].to_numpy()))

    def errors(self) -> tuple[dict[str, float], dict[str, float]]:
        """Pooled own and total error of every linear."""
        probe = LayerWatcher(self.reference, self.candidate, True, ("own", "total"))
        work = TokenPass(self.reference, self.candidate, self.documents, batch_size=5, probe=probe)
        probed = [Window(**{**vars(s), "probed": True}) for s in self.search]
        rows = work.run(probed)["layers"].to_pylist()
        found: dict[str, dict[str, list[float]]] = {"own": {}, "total": {}}
        for r in rows:
            if r["kind"] == "linear":
                sums = found[r["error"]].setdefault(r["layer"], [0.0, 0.0])
                sums[0] += r["err_sq"]
                sums[1] += r["ref_sq"]
        own, total = (
            {n: e / max(r, 1e-30) for n, (e, r) in found[k].items()} for k in ("own", "total")
        )
        return own, total

    def repair(self, planted: list[str]) -> dict[str, Any]:
        """The search of a bisect, and its verdict on the held-out documents."""
        pairs = list(self.linears.values())
        ordered = gradient_scores(self.reference, pairs, self.search).by_cost(pairs)
        with tempfile.TemporaryDirectory() as folder:
            log = TrialLog(Path(folder) / "bisect.jsonl", "", self.trial_search, None)
            found = log.search(ordered, lambda text: None)
        restored = set(found.restored or ())
        held = found.restored is not None and self.trial_held_out.decide(restored).verdict == "PASS"
        return {
            "exact": restored == set(planted),
            "passes": held,
            "evaluations": len(log.known),
            "missed": sorted(set(planted) - restored),
            "needless": sorted(restored - set(planted)),
        }


def _policy(limit: float) -> Policy:
    folder = Path(tempfile.mkdtemp(prefix="planted-"))
    file = folder / "policy.yaml"
    gate = f"{{metric: kl.mean, max: {limit}, min_n: 2}}"
    file.write_text(f"version: 1\nname: planted\ngates: [{gate}]\n")
    return load_policy(file)


@torch.no_grad()
def hurt(weight: torch.Tensor, damage: str, strength: Any) -> None:
    """Damage one linear's weight in place."""
    if damage == "noise":
        noise = torch.randn(weight.shape)
        size = weight.float().norm() / noise.norm() * 10 ** (-strength / 20)
        weight.add_((noise * size).to(weight.dtype))
    elif damage == "channel":
        weight[int(weight.float().norm(dim=1).argmax())] *= strength
    elif damage == "rounding":
        recipe = WeightQuantizer(bits=2, granularity=strength)
        weight.copy_(quantize_weight(weight, recipe)[0].to(weight.dtype))
    else:
        weight.zero_()


def smollm2_spec() -> ModelSpec:
    """The demo's reference."""
    return load_model_spec(assets.folder("suites") / "demo" / "base.yaml")


def tiny_spec() -> ModelSpec:
    """A random four-layer Llama, as in the tests."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.conftest import tiny_tokenizer

    path = Path(tempfile.mkdtemp(prefix="planted-"))
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return ModelSpec.model_validate(
        {"name": "tiny", "model": {"path": str(path), "dtype": "float32", "device": "cpu"}}
    )


if __name__ == "__main__":
    raise SystemExit(main())
