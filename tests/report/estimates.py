"""The estimates, tasks and gates of a synthetic result; ``bad`` scales the damage."""

from __future__ import annotations

import math
import random
from typing import Any

from evalharness.spec.estimate import Estimate, Verdict
from evalharness.spec.result import FlippedItem, GateResult, TaskResult


def estimate(id: str, value: float | None, half: float | None = None, **more: Any) -> Estimate:
    """An estimate with a symmetric interval, or with none."""
    ends: dict[str, Any] = {"low": None, "high": None}
    if value is not None and half is not None:
        ends = {"low": value - half, "high": value + half}
    defaults = {"method": "cluster-ratio t", "n": 29_568, "clusters": 64}
    return Estimate(id=id, value=value, **{**ends, **defaults, **more})


def overall(bad: float) -> list[Estimate]:
    """The metrics over everything; ``bad`` scales the damage."""
    nats, low = {"unit": "nats", "direction": "lower"}, {"direction": "lower"}
    few = "cluster bootstrap-t (log), fewer than 100 documents: interval is approximate"
    boot = {"method": few}
    shift = 0.0124 * bad
    return [
        estimate("perplexity.reference", 12.3457, 1.21, unit="1", **low),
        estimate("perplexity.candidate", 12.3457 * math.exp(shift), 1.23, unit="1", **low),
        Estimate(
            id="perplexity.ratio",
            value=math.exp(shift),
            low=math.exp(shift - 0.004),
            high=math.exp(shift + 0.004),
            method="exp of cluster-ratio t",
            n=29_568,
            clusters=64,
            unit="1",
            direction="lower",
            noise_floor=1.0002,
        ),
        estimate("nll.shift", shift, 0.004, unit="nats/token", noise_floor=0.0002, **low),
        estimate("bits_per_byte.shift", shift / 2.9, 0.0014, unit="bits/byte", **low),
        estimate("kl.mean", 0.0213 * bad, 0.0019, noise_floor=3.1e-5, **nats, **boot),
        estimate("kl.median", 0.0041 * bad, 0.0004, **nats, method="cluster bootstrap"),
        estimate("kl.p99", 0.213 * bad, 0.021, **nats, method="cluster bootstrap"),
        estimate("kl.p999", 0.93 * bad, 0.13, **nats, method="cluster bootstrap"),
        estimate(
            "kl.max", 4.12 * bad, None, **nats, method="", reason="an extreme has no interval"
        ),
        estimate("kl.reverse.mean", 0.0229 * bad, 0.0021, **nats),
        estimate("top1.agreement", 1 - 0.043 * bad, 0.004, unit="fraction", direction="higher"),
        estimate("top5.overlap", 1 - 0.031 * bad, 0.003, unit="fraction", direction="higher"),
        estimate("prob.rms_shift", 0.0297 * bad, 0.0018, unit="fraction", **low),
        estimate(
            "logit.max_abs_diff",
            8.31 * bad,
            unit="logits",
            worst="token ' the' at position 211 of pydoc/topics#14",
            reason="an extreme grows with the number of tokens",
            **low,
        ),
        estimate("logit.half_range", 5.92 * bad, unit="logits", reason="an extreme", **low),
        estimate("logit.half_range.p999", 3.41 * bad, 0.22, unit="logits", **low),
        estimate("ece.reference", 0.0212, 0.0061, unit="fraction", noise_floor=0.0118, **low),
        estimate("ece.candidate", 0.0254, 0.0063, unit="fraction", noise_floor=0.0118, **low),
        estimate("ece.shift", 0.0042, 0.0031, unit="fraction", **low),
        estimate("ce2.shift", 0.00021, 0.00034, unit="fraction", **low),
        estimate("calibration.score.shift", 0.0061, 0.0072, unit="fraction", **low),
        estimate("brier.shift", 0.0032, 0.0011, unit="fraction", **low),
        estimate("temperature.shift", 0.012, 0.008, unit="1", direction="none"),
        estimate("weights.bits_per_weight", 5.02, 0.0, unit="bits", method="measured", **low),
        estimate("memory.weights.ratio", 0.314, 0.0, unit="1", method="measured", **low),
        estimate("memory.peak.ratio", 0.402, 0.0, unit="1", method="measured", **low),
        estimate("latency.prefill.ratio", 1.04, 0.03, unit="1", n=20, clusters=20, **low),
        estimate(
            "latency.decode.ratio", None, unit="1", n=0, clusters=0, reason="not measured", **low
        ),
    ]


def scoped(rng: random.Random, bad: float) -> list[Estimate]:
    """The same by corpus and slice."""
    found = []
    scopes = [{"corpus": "pydoc"}, {"corpus": "wiki"}, {"corpus": "mine"}]
    scopes += [{"slice": s} for s in ("length:long", "domain:code", "language:de", "safety")]
    for scope in scopes:
        shift = (0.0124 + rng.uniform(-0.008, 0.01)) * bad
        found += [
            estimate(
                "nll.shift",
                shift,
                rng.uniform(0.004, 0.009),
                unit="nats/token",
                direction="lower",
                scope=scope,
                n=8211,
                clusters=21,
            ),
            estimate(
                "kl.mean",
                0.02 * bad * rng.uniform(0.6, 1.8),
                0.003,
                unit="nats",
                direction="lower",
                scope=scope,
                n=8211,
                clusters=21,
            ),
            estimate(
                "top1.agreement",
                1 - 0.043 * bad * rng.uniform(0.6, 1.5),
                0.008,
                unit="fraction",
                direction="higher",
                scope=scope,
                n=8211,
                clusters=21,
            ),
        ]
    one = {"corpus": "one-document", "slice": "legal"}
    why = "only one document: between-document variation is unknown, so there is no interval"
    found.append(
        estimate(
            "nll.shift",
            0.019,
            unit="nats/token",
            direction="lower",
            scope=one,
            n=511,
            clusters=1,
            reason=why,
        )
    )
    return found


def task_parts(bad: float) -> tuple[list[TaskResult], list[Estimate], list[FlippedItem]]:
    """Three tasks, with estimates and flipped items."""
    tasks, estimates, flipped = [], [], []
    rows = [
        ("mmlu_dev_cloze", "acc", 0.4211, 285),
        ("arc_easy", "acc_norm", 0.612, 570),
        ("hellaswag", "acc_norm", 0.43, 400),
    ]
    for name, metric, score, items in rows:
        worse, better = round(items * 0.03 * bad), round(items * 0.02)
        scope = {"task": name, "metric": metric}
        delta = (better - worse) / items
        tasks.append(
            TaskResult(
                task=name,
                metric=metric,
                reference=score,
                candidate=score + delta,
                higher_is_better=True,
                items=items,
                right_to_wrong=worse,
                wrong_to_right=better,
                num_fewshot=0,
            )
        )
        common = {"scope": scope, "n": items, "clusters": items, "direction": "higher"}
        estimates += [
            estimate("task.score.reference", score, 0.03, **common),
            estimate("task.score.candidate", score + delta, 0.03, **common),
            estimate("task.score.shift", delta, 0.013, method="Tango score", **common),
            estimate(
                "task.flips",
                (worse + better) / items,
                0.012,
                **{**common, "direction": "lower", "unit": "fraction"},
            ),
            estimate("ece.shift", 0.011, 0.02, **{**common, "direction": "lower"}),
        ]
        at = {"scope": {"task": name}, "n": 30 * items, "clusters": items}
        estimates += [
            estimate("kl.mean", 0.031 * bad, 0.002, unit="nats/token", **at),
            estimate("top1.agreement", 1 - 0.05 * bad, 0.004, direction="higher", **at),
            estimate("logit.half_range.p999", 3.7 * bad, 0.3, unit="logits", **at),
            estimate("logit.half_range", 6.1 * bad, unit="logits", reason="an extreme", **at),
        ]
    tasks.append(
        TaskResult(
            task="humaneval_like",
            metric="pass@1",
            reference=0.12,
            candidate=None,
            higher_is_better=True,
            items=40,
        )
    )
    for k in range(6):
        change = "wrong→right" if k % 3 == 2 else "right→wrong"
        flipped.append(
            FlippedItem(
                task="arc_easy",
                item=f"test-{k}",
                change=change,  # type: ignore[arg-type]
                prompt=f"Question: Which of these {k + 2} gases do plants take in?\nAnswer:",
                target="carbon dioxide",
                reference_answer="carbon dioxide",
                candidate_answer="oxygen",
            )
        )
    return tasks, estimates, flipped


def gates(bad: float) -> list[GateResult]:
    """Six gates, as a policy of the demo has; their verdicts follow ``bad``."""
    shift = math.exp(0.0124 * bad)
    low, high = math.exp(0.0124 * bad - 0.004), math.exp(0.0124 * bad + 0.004)
    limit = 1.02
    verdict: Verdict = "PASS" if high < limit else "FAIL" if low > limit else "INCONCLUSIVE"
    reason = {
        "PASS": "The whole interval is below the limit.",
        "FAIL": f"Perplexity rose by {100 * (shift - 1):.1f}%; the whole interval is above the "
        "limit. Most of it comes from model.layers.29.mlp.down_proj.",
        "INCONCLUSIVE": "The interval contains the limit; measure 118 further documents.",
        "ANOMALOUS": "",
    }[verdict]
    common = {"file": "gates/default.yaml"}
    return [
        GateResult(
            id="perplexity",
            metric="perplexity.ratio",
            verdict=verdict,
            observed=shift,
            low=low,
            high=high,
            bound=low if verdict == "FAIL" else high,
            threshold=limit,
            side="max",
            reason=reason,
            unit="1",
            line=12,
            worst="corpus wiki (+2.1%)" if verdict != "PASS" else None,
            further_documents=118 if verdict == "INCONCLUSIVE" else None,
            **common,
        ),
        GateResult(
            id="kl",
            metric="kl.mean",
            verdict="PASS",
            observed=0.0213,
            low=0.0194,
            high=0.0232,
            bound=0.0232,
            threshold=0.05,
            unit="nats",
            line=15,
            reason="The whole interval is below the limit.",
            **common,
        ),
        GateResult(
            id="agreement",
            metric="top1.agreement",
            verdict="PASS",
            observed=0.957,
            low=0.953,
            high=0.961,
            bound=0.953,
            threshold=0.95,
            side="min",
            line=18,
            unit="fraction",
            reason="The whole interval is above the limit.",
            **common,
        ),
        GateResult(
            id="arc-drop",
            metric="task.score.shift",
            severity="warn",
            blocking=False,
            scope={"task": "arc_easy", "metric": "acc_norm"},
            verdict="INCONCLUSIVE",
            observed=-0.0105,
            low=-0.0235,
            high=0.0025,
            bound=-0.0235,
            threshold=-0.01,
            side="min",
            reason="570 items resolve a drop of 1.3 points, the limit is 1.",
            further_documents=1240,
            line=21,
            **common,
        ),
        GateResult(
            id="layer-error",
            metric="layer.error.own",
            verdict="FAIL",
            scope={"layer": "model.layers.29.mlp.down_proj"},
            observed=0.136,
            low=0.131,
            high=0.143,
            bound=0.131,
            threshold=0.1,
            unit="relative L2",
            line=26,
            worst="model.layers.29.mlp.down_proj",
            reason="One of 224 modules is above the limit.",
            waiver="outlier channel 1512, kept at 4 bits until the next calibration",
            **common,
        ),
        GateResult(
            id="calibration",
            metric="calibration.score.shift",
            verdict="PASS",
            observed=0.0061,
            low=-0.0011,
            high=0.0133,
            bound=0.0133,
            threshold=0.02,
            unit="fraction",
            reason="The whole interval is below the limit.",
            line=30,
            **common,
        ),
    ]
