"""Synthetic records: what a run would hold, without a model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from evalharness.metrics import Estimates, Evidence
from evalharness.run import records
from evalharness.run.directory import InMemory
from evalharness.run.manifest import Manifest

ERRORS = ("total", "own", "inherited", "own_on_clean")
MANIFEST: Manifest = {
    "suite": {"slices": [{"name": "xs", "where": {"kind": "x"}}]},
    "sides": {
        side: {
            "manifest": {
                "bits_per_weight": 16.0,
                "weight_bytes": 100,
                "resident_bytes": 100,
                "compressed_share": 0.0,
                "sparsity": 0.0,
                "two_of_four": 0.0,
            }
        }
        for side in ("reference", "candidate")
    },
    "shared_items": [],
    "peak_bytes": {"reference": 100, "candidate": 100},
}

Tables = dict[str, pd.DataFrame]


def synthetic(documents: int = 12, seed: int = 0, damage: float = 0.2) -> Tables:
    """Records of a pair whose logits were drawn, computed with NumPy from the definitions.

    Parameters
    ----------
    documents : how many, half of each of two corpora.
    seed : of everything that is drawn.
    damage : standard deviation of what is added to the candidate's logits; 0 is a model against
        itself.

    Returns
    -------
    Tables of every kind of record that our own metrics read, by name, as `run.records` has them.

    """
    return {name: frame.copy() for name, frame in _drawn(documents, seed, damage).items()}


@cache
def _drawn(documents: int, seed: int, damage: float) -> Tables:
    random = np.random.default_rng(seed)
    vocab, rows = 40, []
    for doc in range(documents):
        for position in range(1, int(random.integers(20, 60))):
            z = 2 * random.standard_normal(vocab)
            rows.append(
                _token_row(
                    doc,
                    position,
                    z,
                    z + damage * random.standard_normal(vocab),
                    int(random.integers(vocab)),
                )
            )
    tokens = pd.DataFrame(rows)
    grouped = tokens.groupby("doc")
    texts = pd.DataFrame(
        {
            "doc": np.arange(documents),
            "corpus": ["ab"[i % 2] for i in range(documents)],
            "id": [f"d{i}" for i in range(documents)],
            "attributes": [json.dumps({"kind": "xy"[i % 3 == 0]}) for i in range(documents)],
            "tokens": grouped.size() + 1,
            "scored_tokens": grouped.size(),
            "bytes_ref": 4 * grouped.size(),
            "bytes_cand": 4 * grouped.size(),
            "nll_ref": grouped["nll_ref"].sum(),
            "nll_cand": grouped["nll_cand"].sum(),
        }
    ).reset_index(drop=True)
    found = {"tokens": tokens, "documents": texts, **_items(random, damage)}
    return found | _item_tokens(found["items"], tokens) | _modules(texts, damage) | _timings(random)


def _token_row(
    doc: int, position: int, z: np.ndarray, w: np.ndarray, target: int
) -> dict[str, Any]:
    p, q = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (z, w))
    delta = w - z
    five = [set(np.argsort(-x, kind="stable")[:5]) for x in (z, w)]
    return {
        "doc": doc,
        "window": doc,
        "position": position,
        "token": target,
        "nll_ref": -np.log(p[target]),
        "nll_cand": -np.log(q[target]),
        "kl": max(0.0, (p * np.log(p / q)).sum()),
        "kl_reverse": max(0.0, (q * np.log(q / p)).sum()),
        "total_variation": np.abs(p - q).sum() / 2,
        "entropy_ref": -(p * np.log(p)).sum(),
        "entropy_cand": -(q * np.log(q)).sum(),
        "conf_ref": p.max(),
        "conf_cand": q.max(),
        "argmax_ref": p.argmax(),
        "argmax_cand": q.argmax(),
        "top5_overlap": len(five[0] & five[1]),
        "max_abs": np.abs(delta).max(),
        "max_abs_token": np.abs(delta).argmax(),
        "half_range": (delta.max() - delta.min()) / 2,
    }


def _items(random: Any, damage: float) -> Tables:
    n = 60
    right = random.random(n) < 0.6
    turned = random.random(n) < min(damage, 0.5)
    conf = random.uniform(0.3, 0.95, n)
    frame = pd.DataFrame(
        {
            "task": "quiz",
            "doc_id": np.arange(n),
            "cluster": [str(i) for i in range(n)],
            "metric": "acc",
            "score_ref": right.astype(float),
            "score_cand": (right ^ turned).astype(float),
            "binary": True,
            "prompt_hash": "p",
            "target_hash": "t",
            "conf_ref": conf,
            "conf_cand": np.clip(conf + damage * random.standard_normal(n) / 10, 0.01, 0.99),
            "correct_ref": right,
            "correct_cand": right ^ turned,
            "prompt": "?",
            "target": "!",
            "answer_ref": "a",
            "answer_cand": "b",
        }
    )
    tasks = pd.DataFrame(
        [
            {
                "task": "quiz",
                "metric": "acc",
                "reference": frame["score_ref"].mean(),
                "candidate": frame["score_cand"].mean(),
                "higher_is_better": True,
                "num_fewshot": 0,
            }
        ]
    )
    return {"items": frame, "tasks": tasks}


def _item_tokens(frame: pd.DataFrame, tokens: pd.DataFrame) -> Tables:
    """Four positions of each item, with the statistics of as many tokens."""
    rows = tokens.iloc[: 4 * len(frame)].reset_index(drop=True)
    of = frame.iloc[np.arange(len(rows)) // 4].reset_index(drop=True)
    own = pd.concat([of[["task", "doc_id", "cluster"]], rows], axis=1)
    return {"item_tokens": own[records.ITEM_TOKENS.names]}


def _modules(texts: pd.DataFrame, damage: float) -> Tables:
    rows = []
    for error, doc in itertools.product(ERRORS, texts["doc"]):
        relative = damage * (1 + 0.1 * (doc % 3))
        place = 0
        if relative:
            place = int(records.BINS_PER_OCTAVE * np.log2(relative / records.EDGE_MIN)) + 1
        rows.append(
            {
                "layer": "model.layers.0",
                "kind": "block",
                "type": "Block",
                "error": error,
                "doc": doc,
                "tokens": 30,
                "err_sq": 30 * relative**2,
                "ref_sq": 30.0,
                "update_sq": 15.0,
                "rel_bins": [place],
                "rel_counts": [30],
                "cos_sum": 30 - relative,
                "cos_bins": [place],
                "cos_counts": [30],
                "max_abs": relative,
                "max_abs_position": 3,
                "max_abs_channel": 4,
                "pos0_err_sq": relative**2,
                "pos0_ref_sq": 1.0,
            }
        )
    weights = pd.DataFrame(
        [
            {
                "layer": "lm_head",
                "tensor": "weight",
                "kind": "linear",
                "storage_ref": "float32",
                "storage_cand": "float32",
                "rows": 4,
                "columns": 5,
                "bits_ref": 32.0,
                "bits_cand": 32.0,
                "err_sq": damage**2,
                "ref_sq": 1.0,
                "max_abs": damage,
                "max_abs_row": 0,
                "max_abs_column": 0,
                "reason": None,
            }
        ]
    )
    routing = pd.DataFrame(
        [
            {
                "layer": "gate",
                "doc": doc,
                "expert": expert,
                "tokens": 30,
                "tokens_ref": 15,
                "tokens_cand": 15,
                "tokens_both": 15 - (doc % 4 + 1 if damage else 0),
            }
            for doc in texts["doc"]
            for expert in range(2)
        ]
    )
    return {"layers": pd.DataFrame(rows), "weights": weights, "routing": routing}


def _timings(random: Any) -> Tables:
    seconds = 1 + 0.1 * random.random((2, 24))
    frame = {"kind": ["prefill", "decode"] * 12, "tokens": 16, "process": np.arange(24) // 8 + 1}
    return {"timings": pd.DataFrame(frame | dict(zip(("seconds_ref", "seconds_cand"), seconds)))}


class Arrow(Mapping[str, pa.Table]):
    """The same as Arrow tables of the records' schemas, each made when it is first read."""

    def __init__(self, tables: Mapping[str, pd.DataFrame]) -> None:
        self._frames = tables
        self._made: dict[str, pa.Table] = {}

    def __getitem__(self, name: str) -> pa.Table:
        if name not in self._made:
            schema = records.SCHEMAS[name]
            frame = self._frames[name][schema.names]
            self._made[name] = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)


def estimates(tables: Mapping[str, pd.DataFrame]) -> Estimates:
    """What a run with these records would estimate."""
    return Estimates(Evidence(InMemory(MANIFEST, Arrow(tables))))


def swapped(tables: Tables) -> Tables:
    """The same records with the sides exchanged."""
    pairs = [("kl", "kl_reverse"), ("bytes_ref", "bytes_cand"), ("reference", "candidate")]
    pairs += [
        (f"{n}_ref", f"{n}_cand")
        for n in ("nll", "entropy", "conf", "argmax", "score", "correct", "answer")
    ]
    names = {a: b for x, y in pairs for a, b in ((x, y), (y, x))}
    return {k: v.rename(columns=names) for k, v in tables.items()}
