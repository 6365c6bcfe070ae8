"""A synthetic Result: a 7B-like pair (32 layers × 7 linears) in every verdict, and hostile."""

from __future__ import annotations

import random
from typing import Any

from evalharness.spec.estimate import Verdict
from evalharness.spec.module_results import Matching
from evalharness.spec.result import Anomaly, Compared, Cost, Result, Waiver

from .estimates import estimate, gates, overall, scoped, task_parts
from .evidence import compared, figures, layer_parts, side, worst_tokens

HOSTILE = (
    "</script><img src=x onerror=alert(1)>|`*_[x](http://evil)\x1b[31m\x00\u202etxt.exe\u200b"
    "\r\n::error::%0A]]>&amp;{{7*7}}"
)


def make_result(verdict: Verdict = "PASS", *, blocks: int = 32, **more: Any) -> Result:
    """A complete result of the given verdict; ``more`` replaces fields."""
    rng = random.Random(7)
    bad = {"PASS": 1.0, "FAIL": 2.6, "INCONCLUSIVE": 1.5, "ANOMALOUS": 1.0}[verdict]
    tasks, task_estimates, flipped = task_parts(bad)
    layers = layer_parts(rng, blocks, bad)
    by_layer = [
        estimate(
            f"layer.error.{r.error}",
            r.median,
            0.001,
            scope={"layer": r.layer},
            unit="relative L2",
            direction="lower",
        )
        for r in layers
        if r.kind == "block"
    ]
    headline = {
        "PASS": "Every blocking gate passed; one warning gate is inconclusive.",
        "FAIL": "Perplexity rose by 3.3% [2.9%, 3.7%], above the limit of 2%; "
        "most of it comes from model.layers.29.mlp.down_proj.",
        "INCONCLUSIVE": "64 documents cannot decide perplexity; 118 more would.",
        "ANOMALOUS": "The candidate gave NaN on 3 documents; no verdict can be trusted.",
    }[verdict]
    anomalies = [Anomaly(kind="nan", message="logits of 3 documents are NaN on the candidate")]
    fields: dict[str, Any] = {
        "evalharness_version": "0.1.0",
        "verdict": verdict,
        "headline": headline,
        "exit_code": {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "ANOMALOUS": 3}[verdict],
        "reference": "smol-7b-instruct",
        "candidate": "smol-7b-instruct-int4",
        "suite": "demo",
        "policy": "default",
        "created": "2026-11-23T20:16:07Z",
        "metrics": overall(bad) + scoped(rng, bad) + task_estimates + by_layer,
        "gates": gates(bad),
        "waivers": [
            Waiver(
                gate="layer-error",
                reason="outlier channel 1512, kept at 4 bits until the next calibration",
                owner="ada",
                expires="2026-12-01",
                state="expiring",
            ),
            Waiver(
                gate="old-gate", reason="no longer there", expires="2025-01-01", state="expired"
            ),
        ],
        "layers": layers,
        "matching": Matching(
            exact=224,
            fused=["model.layers.*.self_attn.qkv_proj"],
            unmatched_reference=["model.rotary_emb"],
            unmatched_candidate=[],
        ),
        "tasks": tasks,
        "flipped": flipped,
        "worst_tokens": worst_tokens(),
        "figures": figures(rng),
        "compared": compared(),
        "cost": Cost(
            seconds={
                "reference.load": 3.21,
                "candidate.load": 1.02,
                "reference.forward": 41.2,
                "candidate.forward": 42.9,
                "statistics": 3.3,
            },
            memory={"reference.weights": 13_476_831_232, "candidate.weights": 4_169_000_000},
        ),
        "environment": {
            "python": "3.11.9",
            "torch": "2.9.0",
            "transformers": "5.0.1",
            "device": "NVIDIA H200",
            "platform": "Linux x86_64",
            "seed": "0",
        },
        "anomalies": anomalies if verdict == "ANOMALOUS" else [],
        "warnings": ["The candidate's chat template differs; prompts are not templated."],
        "command": "evalharness compare base.yaml candidate.yaml --suite demo --gates default",
    }
    return Result(**{**fields, **more})


def make_bare(verdict: Verdict = "INCONCLUSIVE") -> Result:
    """A result in which almost nothing was measured."""
    empty = side("a", 16.0, []).model_copy(update={"weight_bytes": 0})
    return Result(
        evalharness_version="0.1.0",
        verdict=verdict,
        headline="Nothing was measured.",
        exit_code=3,
        reference="a",
        candidate="a",
        suite="empty",
        policy="none",
        created="2026-11-23T20:16:07Z",
        metrics=[],
        gates=[],
        compared=Compared(reference=empty, candidate=empty, same_model=True),
        cost=Cost(reason="the suite measures no cost"),
    )


def _poison(value: Any, text: str, keep: frozenset[str]) -> Any:
    """Replace every free string of dumped data by ``text``; keep those that are choices."""
    if isinstance(value, dict):
        return {
            (k if k in Result.model_fields or k.isidentifier() else text + k): v
            if k in keep
            else _poison(v, text, keep)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_poison(v, text, keep) for v in value]
    return text if isinstance(value, str) else value


CHOICES = frozenset({"verdict", "direction", "severity", "side", "kind", "change", "by", "state"})


def make_hostile(text: str = HOSTILE, verdict: Verdict = "FAIL", blocks: int = 2) -> Result:
    """A result in which every free string is ``text``."""
    data = make_result(verdict, blocks=blocks).model_dump()
    data["anomalies"] = [{"kind": "x", "message": "x"}]
    poisoned = _poison(data, text, CHOICES)
    poisoned["anomalies"][0]["kind"] = text
    poisoned["environment"] = {text: text}
    poisoned["figures"]["reliability"] = {text: data["figures"]["reliability"]["everything"]}
    return Result.model_validate(poisoned)
