"""Records of what is inside: layer errors, weights, activations, routing, CKA, sensitivity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from evalharness.run import records

from .texts import Floats, Naming, table

LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
PROBED = 12  # documents that the layers were watched on
CULPRIT = 29  # the block whose mlp.down_proj is far worse than any other


def modules(
    random: np.random.Generator, blocks: int, documents: int, damage: float, name: Naming
) -> dict[str, pa.Table]:
    """Layers of ``blocks`` × 7 linears and a head, with everything a run records of them."""
    probed = min(PROBED, documents)
    errors = _errors(random, blocks, damage)
    linears = [f"model.layers.{i}.{linear}" for i in range(blocks) for linear in LINEARS]
    return {
        "layers": _layers(random, errors, probed, name),
        "channels": _channels(errors, name),
        "weights": table("weights", pd.DataFrame(_weights(linears, damage, name))),
        "activations": table("activations", pd.DataFrame(_activations(linears, probed, name))),
        "outliers": table("outliers", pd.DataFrame(_outliers(linears, name))),
        "routing": table("routing", pd.DataFrame(_routing(probed, name))),
        "sensitivity": table("sensitivity", pd.DataFrame(_sensitivity(linears, name))),
        "timings": table("timings", pd.DataFrame(_timings(random))),
    }


def _errors(
    random: np.random.Generator, blocks: int, damage: float
) -> list[tuple[str, str, str, str, float]]:
    """Module, kind, type, error and its median: blocks in three kinds of error, linears in two."""
    found = []
    for i in range(blocks):
        own = damage * (0.1 + 0.04 * math.sin(i / 3)) * random.uniform(0.85, 1.15)
        inherited = damage * 0.05 * math.sqrt(i)
        of_block = {"total": math.hypot(own, inherited), "own": own, "inherited": inherited}
        block = f"model.layers.{i}"
        found += [(block, "block", "LlamaDecoderLayer", e, v) for e, v in of_block.items()]
        for linear in LINEARS:
            worst = (i, linear) == (min(CULPRIT, blocks - 1), "mlp.down_proj")
            error = damage * 0.2 * random.uniform(0.5, 1.4) * (3.4 if worst else 1.0)
            for kind, value in (("own", error), ("total", 1.3 * error)):
                found.append((f"{block}.{linear}", "linear", "Linear", kind, value))
    return [*found, ("lm_head", "linear", "Linear", "own", 0.0)]


def _layers(
    random: np.random.Generator,
    errors: list[tuple[str, str, str, str, float]],
    documents: int,
    name: Naming,
) -> pa.Table:
    """Each error in each document, varied a little from document to document."""
    n = len(errors) * documents
    of = np.repeat(np.arange(len(errors)), documents)
    median = np.array([error[4] for error in errors])[of] * random.uniform(0.9, 1.1, n)
    names = [[name(error[0]), error[1], name(error[2]), error[3]] for error in errors]
    columns = {
        key: [names[k][place] for k in of]
        for place, key in enumerate(("layer", "kind", "type", "error"))
    }
    tokens = 40.0
    numbers: dict[str, Any] = {
        "doc": np.tile(np.arange(documents), len(errors)),
        "tokens": np.full(n, tokens),
        "err_sq": tokens * median**2,
        "ref_sq": np.full(n, tokens),
        "update_sq": [tokens / 2 if kind == "block" else None for kind in columns["kind"]],
        **dict(zip(("rel_bins", "rel_counts"), _histograms(median), strict=True)),
        "cos_sum": tokens * (1 - median**2 / 2),
        **dict(zip(("cos_bins", "cos_counts"), _histograms(median**2 / 2), strict=True)),
        "max_abs": 140 * median,
        "max_abs_position": random.integers(1, 40, n),
        "max_abs_channel": np.full(n, 1512),
        "pos0_err_sq": median**2 / 25,
        "pos0_ref_sq": np.ones(n),
    }
    schema = records.LAYERS
    arrays = [pa.array({**columns, **numbers}[f.name]).cast(f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


_STEPS, _COUNTS = (-16, -8, 0, 8, 16), (4, 8, 16, 8, 4)  # of the tokens around a median


def _histograms(medians: Floats) -> tuple[pa.Array, pa.Array]:
    """Sparse histograms, bins and counts of 40 tokens around each median; bin 0 is exact zeros."""
    logs = np.log2(np.maximum(medians, records.EDGE_MIN) / records.EDGE_MIN)
    middle = np.floor(records.BINS_PER_OCTAVE * logs).astype(np.int64) + 1
    bins = [[m + s for s in _STEPS] if x > 0 else [0] for m, x in zip(middle, medians, strict=True)]
    counts = [_COUNTS if x > 0 else (sum(_COUNTS),) for x in medians]
    return pa.array(bins), pa.array(counts)


def _channels(errors: list[tuple[str, str, str, str, float]], name: Naming) -> pa.Table:
    rows = [
        {
            "layer": name(layer),
            "error": error,
            "tokens": 40,
            "channel": 1512 - k,
            "err_sq": value**2 / (k + 2),
            "all_err_sq": 2 * value**2,
        }
        for layer, _, _, error, value in errors
        if error == "own"
        for k in range(3)
    ]
    return pa.Table.from_pylist(rows, schema=records.CHANNELS)


def _weights(linears: list[str], damage: float, name: Naming) -> list[dict[str, Any]]:
    """Every linear's weight; the head's storage could not be read."""
    common = {
        "tensor": name("weight"),
        "storage_ref": name("bfloat16"),
        "rows": 4096,
        "columns": 4096,
        "bits_ref": 16.0,
    }
    rows = [
        {
            **common,
            "layer": name(layer),
            "kind": "linear",
            "storage_cand": name("int4 group 32 symmetric"),
            "bits_cand": 4.5,
            "err_sq": damage**2 * (1 + k % 7),
            "ref_sq": 100.0,
            "max_abs": damage / 10,
            "max_abs_row": 3,
            "max_abs_column": k,
            "reason": None,
        }
        for k, layer in enumerate(linears)
    ]
    unread = dict.fromkeys(("err_sq", "ref_sq", "max_abs", "max_abs_row", "max_abs_column"))
    head = {"layer": name("lm_head"), "kind": "linear", "storage_cand": name("packed")}
    why = name("its storage cannot be dequantised")
    return [*rows, {**common, **head, "bits_cand": None, **unread, "reason": why}]


def _activations(linears: list[str], documents: int, name: Naming) -> list[dict[str, Any]]:
    """The inputs of one block's linears, on both sides and for the calibration text."""
    return [
        {
            "layer": name(layer),
            "side": side,
            "doc": doc,
            "values": 4096 * 40,
            "channels": 4096,
            "sum": 0.0,
            "sum_sq": 4096.0 * 40,
            "sum_cube": 0.0,
            "sum_quad": 4096.0 * 40 * (3 + k),
            "max_abs": 10.0 + doc,
            "pos0_max_abs": 100.0,
            "weighted_err_sq": 1.0 + doc / 10 if side == "reference" else None,
            "weighted_ref_sq": 100.0 if side == "reference" else None,
            "beyond_range": 5 + doc if side == "reference" else None,
            "beyond_channel": 50 + doc if side == "reference" else None,
        }
        for k, layer in enumerate(linears[:7])
        for side in ("reference", "candidate", "calibration")
        for doc in range(documents)
    ]


def _outliers(linears: list[str], name: Naming) -> list[dict[str, Any]]:
    return [
        {
            "layer": name(layer),
            "side": side,
            "by": by,
            "rank": rank,
            "channel": 1512 + rank,
            "max_abs": 20.0 - rank,
            "energy": 0.1 / (rank + 1),
            "top_energy": 0.4,
            "range_shift": 0.3,
        }
        for layer in linears[:7]
        for side in ("reference", "candidate", "calibration")
        for by in ("max", "energy")
        for rank in range(5)
    ]


def _routing(documents: int, name: Naming) -> list[dict[str, Any]]:
    """One router of three experts, the last of which saw no token."""
    return [
        {
            "layer": name("model.layers.0.mlp.gate"),
            "doc": doc,
            "expert": expert,
            "tokens": 40,
            "tokens_ref": sent,
            "tokens_cand": sent,
            "tokens_both": max(0, sent - 1 - doc % 3),
        }
        for doc in range(documents)
        for expert, sent in enumerate((25, 15, 0))
    ]


def cka(name: Naming) -> pa.Table:
    """Blocks of two models of unlike depth: three against two, in five minibatches."""
    rows = [
        {
            "reference": name(f"model.layers.{i}"),
            "candidate": name(f"model.layers.{j}"),
            "minibatch": batch,
            "tokens": 100,
            "hsic": 0.9 - 0.2 * abs(i - j) + 0.01 * batch,
            "hsic_ref": 1.0,
            "hsic_cand": 1.0,
        }
        for batch in range(5)
        for i in range(3)
        for j in range(2)
    ]
    return pa.Table.from_pylist(rows, schema=records.CKA)


def ranked(linears: list[str]) -> list[str]:
    """The modules that a bisect swapped, the most sensitive first."""
    return linears[:3]


def _sensitivity(linears: list[str], name: Naming) -> list[dict[str, Any]]:
    """What `bisect` records: gradients, swaps with their controls, restored modules."""
    kl = {("restore", ""): 9.0, ("swap", "*"): 6.0}
    for k, layer in enumerate(ranked(linears)):
        kl |= {("gradient", layer): 5.0 - k, ("swap", layer): 4.0 - k}
        kl |= {("noise", layer): 2.0, ("restore", layer): 5.0 + k}
    return [
        {
            "module": module if module in ("", "*") else name(module),
            "what": what,
            "doc": doc,
            "tokens": 10,
            "kl": value + 0.2 * doc,
        }
        for (what, module), value in kl.items()
        for doc in range(6)
    ]


def _timings(random: np.random.Generator) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "process": number % 3 + 1,
            "tokens": 512,
            "seconds_ref": 0.2 + 0.01 * random.random(),
            "seconds_cand": 0.21 + 0.01 * random.random(),
        }
        for kind in ("prefill", "decode")
        for number in range(9)
    ]
