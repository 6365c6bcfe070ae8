"""What lm-eval logged for both sides of a task, as one row per document and metric.

Documents are paired by lm-eval's id, and only if both sides were asked the same thing: equal
document, prompt and target hashes, and equal requests. A document whose log-likelihood is NaN or
infinite on a side has no score there: lm-eval's ``argmax`` over a NaN would call it right or wrong.

Which metrics have rows: those whose score is the mean of numbers over documents (acc, exact_match,
F1 per item, …), brier_score, and bits_per_byte, whose rows are each document's own bits per byte
(lm-eval's score weights them by bytes). Perplexities, Matthews correlation and corpus-level scores
(BLEU) are no mean over documents: they have lm-eval's aggregate only.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from evalharness.compat import lm_eval
from evalharness.data.items import PreparedTask
from evalharness.errors import RunError
from evalharness.pair.tasks.multiple_choice import Choice, read_choice
from evalharness.run.records import ITEM_TOKENS, ITEMS, SAME_TEXT

_ACCURACY = re.compile(r"(^|_)(acc|accuracy|em|exact_match|exact|match|correct|pass(@\d+)?)(_|,|$)")
_PER_ITEM = ("brier_score", "bits_per_byte")  # tuples that lm-eval's aggregation takes one by one
_PASSAGES = ("passage", "context", "story", "article", "paragraph", "document", "background")
_PASSAGE_CHARACTERS = 50  # shorter texts are labels, not passages
_PROMPT_CHARACTERS, _ANSWER_CHARACTERS = 600, 200

Sample = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """One side of one task, as lm-eval returns it."""

    name: str  # of the model
    scores: Mapping[str, Any]  # lm-eval's aggregates by "metric,filter"
    samples: list[Sample]
    nonfinite_generations: int = 0


@dataclass(frozen=True)
class Paired:
    """Both sides. ``unusable``: per side, documents without a finite answer."""

    frame: pd.DataFrame  # in the schema records.ITEMS
    metrics: tuple[tuple[str, str], ...]  # lm-eval's (metric, filter), in order
    unusable: tuple[frozenset[int], frozenset[int]]
    anomalies: tuple[str, ...]
    clusters: Mapping[int, str]  # by document


def metric_name(metric: str, filter_name: str) -> str:
    """lm-eval's name of a score: its filter is named only where there is one."""
    return metric if filter_name == lm_eval.NO_FILTER else f"{metric},{filter_name}"


def pair_samples(prepared: PreparedTask, reference: Scored, candidate: Scored) -> Paired:
    """Pair the two sides document by document.

    Raises
    ------
    RunError : the sides were not asked the same, naming the task and the first such document.

    """
    name = prepared.name
    ref, cand = _by_document(reference), _by_document(candidate)
    _require_same(name, ref, cand)
    bad_ref, bad_cand = _unusable(ref.values(), reference), _unusable(cand.values(), candidate)
    docs = {doc_id: s["doc"] for (doc_id, _), s in ref.items()}
    clusters = _merged(_clusters(docs), prepared.repeats)
    keys = _metrics(ref, cand)
    choices = [
        {key: read_choice(prepared.task, s) for key, s in side.items()} for side in (ref, cand)
    ]
    carrier = _carrier(keys)
    rows: list[dict[str, Any]] = []
    for metric, filter_name in keys:
        pairs = {d: (ref[d, f], cand[d, f]) for d, f in ref if f == filter_name}
        value = _reader(prepared.task, metric, filter_name, reference, candidate, pairs)
        if value is None:
            continue
        first_row = len(rows)
        for doc_id, sides in pairs.items():
            scores = [
                math.nan if doc_id in bad else value(s)
                for s, bad in zip(sides, (bad_ref, bad_cand), strict=True)
            ]
            picked = [c[doc_id, filter_name] for c in choices]
            rows.append(
                _shown(sides, picked, metric)
                | _confidence(picked, doc_id, (bad_ref, bad_cand), (metric, filter_name) == carrier)
                | {
                    "task": name,
                    "doc_id": doc_id,
                    "cluster": clusters[doc_id],
                    "metric": metric_name(metric, filter_name),
                    "score_ref": scores[0],
                    "score_cand": scores[1],
                }
            )
        binary = bool(_ACCURACY.search(metric)) and all(
            s in (0.0, 1.0) or math.isnan(s)
            for r in rows[first_row:]
            for s in (r["score_ref"], r["score_cand"])
        )
        for row in rows[first_row:]:
            row["binary"] = binary
    return Paired(
        _frame(rows),
        tuple(keys),
        (bad_ref, bad_cand),
        (
            *_anomalies(name, reference, bad_ref, len(docs)),
            *_anomalies(name, candidate, bad_cand, len(docs)),
        ),
        clusters,
    )


def position_rows(
    prepared: PreparedTask, clusters: Mapping[int, str], positions: Mapping[str, Any]
) -> pd.DataFrame:
    """The pair's statistics (`PairedPass.positions`) in the schema `records.ITEM_TOKENS`."""
    if not positions:
        return pd.DataFrame(ITEM_TOKENS.empty_table().to_pandas())
    items = [int(i) for i in positions["item"]]
    ids = items if prepared.samples is None else [prepared.samples[i] for i in items]
    columns = {"task": prepared.name, "doc_id": ids, "cluster": [clusters[i] for i in ids]}
    return pd.DataFrame(columns | dict(positions), columns=ITEM_TOKENS.names)


def _by_document(side: Scored) -> dict[tuple[int, str], Sample]:
    return {(int(s["doc_id"]), str(s["filter"])): s for s in side.samples}


def _require_same(
    task: str, ref: dict[tuple[int, str], Sample], cand: dict[tuple[int, str], Sample]
) -> None:
    for doc_id, filter_name in sorted(ref.keys() ^ cand.keys()):
        raise RunError(
            f"task {task}, document {doc_id} (filter {filter_name}): answered by one side only. "
            "The two sides cannot be paired"
        )
    for key, a in ref.items():
        b = cand[key]
        for what in ("doc_hash", "prompt_hash", "target_hash", "arguments"):
            if a[what] != b[what]:
                raise RunError(
                    f"task {task}, document {key[0]}: the two sides differ in {what} "
                    f"({str(a[what])[:40]!r} and {str(b[what])[:40]!r}). "
                    "The two sides cannot be paired"
                )


def _unusable(samples: Any, side: Scored) -> frozenset[int]:
    """Documents with a NaN or infinite log-likelihood; all, where generation met such logits."""
    return frozenset(
        int(s["doc_id"])
        for s in samples
        if side.nonfinite_generations or not all(_finite(r) for rs in s["resps"] for r in rs)
    )


def _finite(response: Any) -> bool:
    value = response[0] if isinstance(response, tuple | list) and response else response
    return not isinstance(value, float) or math.isfinite(value)


def _anomalies(task: str, side: Scored, bad: frozenset[int], items: int) -> list[str]:
    if not bad:
        return []
    if side.nonfinite_generations:
        return [
            f"{side.name}: NaN or infinite logits while generating for task {task} "
            f"({side.nonfinite_generations} answers); it has no score"
        ]
    return [
        f"{side.name}: NaN or infinite log-likelihood for {len(bad)} of {items} items of task "
        f"{task}, first document {min(bad)}; the task has no score on this side"
    ]


def _metrics(*sides: dict[tuple[int, str], Sample]) -> list[tuple[str, str]]:
    """(metric, filter) in lm-eval's order, the one that carries the choices first."""
    found = dict.fromkeys(
        (str(m), f) for side in sides for (_, f), s in side.items() for m in s["metrics"]
    )
    keys = list(found)
    carrier = _carrier(keys)
    return sorted(keys, key=lambda k: k != carrier)


def _carrier(keys: list[tuple[str, str]]) -> tuple[str, str] | None:
    """The metric whose rows hold the choice: confidence and correctness are those of acc."""
    return next((k for k in keys if k[0] == "acc"), keys[0] if keys else None)


def _reader(
    task: Any,
    metric: str,
    filter_name: str,
    reference: Scored,
    candidate: Scored,
    pairs: dict[int, tuple[Sample, Sample]],
) -> Callable[[Sample], float] | None:
    """How to read a document's score; None where the score is no mean over documents."""
    aggregate = lm_eval.aggregation(task, metric)

    def read(sample: Sample) -> float:
        value = sample.get(metric)
        if value is None:
            return math.nan
        if metric in _PER_ITEM and isinstance(value, tuple | list) and aggregate is not None:
            return float(aggregate([value]))
        return float(value)

    for number, side in enumerate((reference, candidate)):
        values = [pair[number].get(metric) for pair in pairs.values()]
        given = [v for v in values if v is not None]
        if metric in _PER_ITEM and given and isinstance(given[0], tuple | list):
            continue
        if not given or not all(isinstance(v, int | float | np.number | np.bool_) for v in given):
            return None
        score = side.scores.get(f"{metric},{filter_name}")
        mean = sum(float(v) for v in given) / len(given)
        if not isinstance(score, int | float | np.number) or not np.isclose(
            mean, float(score), rtol=1e-9, atol=1e-12, equal_nan=True
        ):
            return None
    return read


def _confidence(
    picked: list[Choice | None], doc_id: int, bad: tuple[frozenset[int], ...], carries: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for side, choice, unusable in zip(("ref", "cand"), picked, bad, strict=True):
        known = carries and choice is not None and doc_id not in unusable
        row[f"conf_{side}"] = choice.confidence if known and choice is not None else math.nan
        row[f"correct_{side}"] = choice.correct if known and choice is not None else None
    return row


def _shown(
    sides: tuple[Sample, Sample], picked: list[Choice | None], metric: str
) -> dict[str, Any]:
    """What the report shows of the item."""
    first = sides[0]
    arguments = first["arguments"][0]
    prompt = str(arguments[0])
    rolling = len(arguments) == 1
    target = picked[0].target if picked[0] is not None else str(first["target"])
    row: dict[str, Any] = {
        "prompt_hash": first["prompt_hash"],
        "target_hash": first["target_hash"],
        "prompt": _head(prompt, _PROMPT_CHARACTERS) if rolling else _tail(prompt),
        "target": "" if rolling else _head(target, _ANSWER_CHARACTERS),
    }
    for side, sample, choice in zip(("ref", "cand"), sides, picked, strict=True):
        answer = choice.answer(metric) if choice is not None else _answer(sample)
        row[f"answer_{side}"] = _head(answer, _ANSWER_CHARACTERS)
    return row


def _answer(sample: Sample) -> str:
    response = sample["filtered_resps"][0] if sample["filtered_resps"] else ""
    if isinstance(response, tuple) and len(response) == 2:
        return f"log-likelihood {response[0]:.4f} nats, {'' if response[1] else 'not '}greedy"
    return f"log-likelihood {response:.4f} nats" if isinstance(response, float) else str(response)


def _head(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _tail(text: str) -> str:
    """The end of a prompt: the item itself comes after the examples."""
    return text if len(text) <= _PROMPT_CHARACTERS else "…" + text[-_PROMPT_CHARACTERS + 1 :]


def _clusters(docs: dict[int, Any]) -> dict[int, str]:
    """The unit of resampling: the passage where documents share one, else the document."""
    for key in _PASSAGES:
        texts = {i: _passage(doc, key) for i, doc in docs.items()}
        known = [t for t in texts.values() if t]
        if len(known) > len(set(known)):
            return {i: f"{key}:{_hash(t)}" if t else str(i) for i, t in texts.items()}
    return {i: str(i) for i in docs}


def _merged(clusters: dict[int, str], repeats: Mapping[int, int]) -> dict[int, str]:
    """Items that ask the same are one cluster, with whatever shares a passage with one of them."""
    found = dict(clusters)
    for later, first in repeats.items():
        old, new = found[later], found[first]
        if ":" not in new:  # the first of these, and no passage of several
            new = f"{SAME_TEXT}:{new}"
        joined = {old, found[first]}
        found |= {i: new for i, cluster in found.items() if cluster in joined}
    return found


def _passage(doc: Any, key: str) -> str:
    text = doc.get(key) if isinstance(doc, Mapping) else None
    return text if isinstance(text, str) and len(text) >= _PASSAGE_CHARACTERS else ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=ITEMS.names)
    types = {"doc_id": "int64", "binary": "bool", "correct_ref": "boolean"}
    types |= {"correct_cand": "boolean"}
    types |= dict.fromkeys(("score_ref", "score_cand", "conf_ref", "conf_cand"), "float64")
    return frame.astype(types)
