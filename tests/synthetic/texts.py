"""Records of texts: documents, tokens and the worst tokens in context."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from evalharness.run import records

Naming = Callable[[str], str]
Floats = npt.NDArray[np.float64]

CORPORA = ("pydoc", "wiki", "mine")
VOCAB = 40


def log_softmax(z: Floats) -> Floats:
    """Log-probabilities, (N, V)."""
    shifted = z - z.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def statistics(random: np.random.Generator, rows: int, damage: float) -> dict[str, Any]:
    """The columns of TOKENS that follow from drawn logits, (N,) each; ``damage`` moves them."""
    z = 2.5 * random.standard_normal((rows, VOCAB))
    w = (1 - damage / 3) * z + damage * random.standard_normal((rows, VOCAB))
    p, q = log_softmax(z), log_softmax(w)
    # Drawn from the reference, so that it is calibrated and any damage costs likelihood.
    token = (np.exp(p).cumsum(1) > random.random((rows, 1))).argmax(1)
    five = [np.argsort(-x, axis=1, kind="stable")[:, :5] for x in (p, q)]
    at, delta = np.arange(rows), w - z
    return {
        "token": token,
        "nll_ref": -p[at, token],
        "nll_cand": -q[at, token],
        "kl": np.maximum(0, (np.exp(p) * (p - q)).sum(1)),
        "kl_reverse": np.maximum(0, (np.exp(q) * (q - p)).sum(1)),
        "total_variation": np.abs(np.exp(p) - np.exp(q)).sum(1) / 2,
        "entropy_ref": -(np.exp(p) * p).sum(1),
        "entropy_cand": -(np.exp(q) * q).sum(1),
        "conf_ref": np.exp(p.max(1)),
        "conf_cand": np.exp(q.max(1)),
        "argmax_ref": p.argmax(1),
        "argmax_cand": q.argmax(1),
        "top5_overlap": (five[0][:, :, None] == five[1][:, None, :]).sum((1, 2)),
        "max_abs": np.abs(delta).max(1),
        "max_abs_token": np.abs(delta).argmax(1),
        "half_range": (delta.max(1) - delta.min(1)) / 2,
    }


def texts(
    random: np.random.Generator, documents: int, damage: float, broken: int, name: Naming
) -> dict[str, pa.Table]:
    """Documents of three corpora with their tokens, the worst of them in context.

    The candidate gave NaN at the last position of each of the first ``broken`` documents.
    """
    scored = random.integers(40, 90, documents)
    doc = np.repeat(np.arange(documents), scored)
    position = np.concatenate([np.arange(1, n + 1) for n in scored])
    found = statistics(random, len(doc), damage)
    tokens = pd.DataFrame({"doc": doc, "window": doc, "position": position, **found})
    bad = (tokens["doc"] < broken) & (tokens["position"] == scored[doc])
    measured = ["nll_cand", "kl", "kl_reverse", "entropy_cand", "conf_cand", "max_abs"]
    measured += ["total_variation"]
    tokens.loc[bad, [*measured, "half_range"]] = np.nan
    sums = tokens.groupby("doc")[["nll_ref", "nll_cand"]].sum()
    corpora = [CORPORA[k * len(CORPORA) // documents] for k in range(documents)]
    rows = pd.DataFrame(
        {
            "doc": np.arange(documents),
            "corpus": [name(corpus) for corpus in corpora],
            "id": [name(f"{corpus}#{k}") for k, corpus in enumerate(corpora)],
            "attributes": [
                json.dumps({"kind": name("code" if k % 3 == 0 else "prose")})
                for k in range(documents)
            ],
            "tokens": scored + 1,
            "scored_tokens": scored,
            "bytes_ref": 4 * scored,
            "bytes_cand": 4 * scored,
            "nll_ref": sums["nll_ref"],
            "nll_cand": sums["nll_cand"],
        }
    )
    return {
        "documents": table("documents", rows),
        "tokens": table("tokens", tokens),
        "contexts": table("contexts", pd.DataFrame(contexts(tokens, name))),
    }


# before, token, after, the reference's top token, the candidate's
_PASSAGES = (
    ("create small anonymous", " functions", ". They are", " functions", " classes"),
    ("in the year", "\n\n", "1984, the\tcompany", "\n", " 19"),
)


def contexts(tokens: pd.DataFrame, name: Naming) -> list[dict[str, Any]]:
    """The two most extreme tokens by each criterion."""
    measures = {"nll": (tokens["nll_cand"] - tokens["nll_ref"]).abs()}
    measures |= {by: tokens[by] for by in ("kl", "half_range", "max_abs")}
    rows = []
    for by, values in measures.items():
        for words, place in zip(_PASSAGES, values.nlargest(2).index, strict=True):
            before, token, after, reference, candidate = (name(word) for word in words)
            rows.append(
                {
                    "by": by,
                    "value": float(values[place]),
                    "doc": int(tokens["doc"][place]),
                    "position": int(tokens["position"][place]),
                    "before": before,
                    "token": token,
                    "after": after,
                    "reference_top": reference,
                    "candidate_top": candidate,
                    "p_reference": float(np.exp(-tokens["nll_ref"][place])),
                    "p_candidate": float(np.exp(-tokens["nll_cand"][place])),
                }
            )
    return rows


def table(name: str, frame: pd.DataFrame) -> pa.Table:
    """``frame`` as records of one kind."""
    schema = records.SCHEMAS[name]
    return pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
