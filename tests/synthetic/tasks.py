"""Records of tasks: items on both sides, the positions they are scored at, lm-eval's scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from evalharness.run import records

from .texts import Naming, statistics, table

# task, lm-eval's metric, share of right answers, items
TASKS = (
    ("mmlu_dev_cloze", "acc", 0.42, 285),
    ("arc_easy", "acc_norm", 0.61, 570),
    ("hellaswag", "acc_norm", 0.43, 400),
)
POSITIONS = 3  # of each item at which a continuation is scored


def tasks(
    random: np.random.Generator, damage: float, share: float, name: Naming
) -> dict[str, pa.Table]:
    """Three tasks with both kinds of flips, and one that lm-eval gives no number for.

    ``share`` of the items are kept; ``damage`` turns right answers wrong.
    """
    items, scores = [], []
    for task, metric, right, count in TASKS:
        rows = _items(random, task, metric, right, max(4, round(share * count)), damage, name)
        items.append(rows)
        scores.append(
            _score(task, metric, rows["score_ref"].mean(), rows["score_cand"].mean(), name)
        )
    scores.append(_score("humaneval_like", "pass@1", None, None, name))
    whole = pd.concat(items, ignore_index=True)
    spread = whole.loc[whole.index.repeat(POSITIONS)].reset_index(drop=True)
    positions = pd.DataFrame(
        {
            **{column: spread[column] for column in ("task", "doc_id", "cluster")},
            "position": np.tile(np.arange(20, 20 + POSITIONS), len(whole)),
            **statistics(random, len(spread), damage),
        }
    )
    return {
        "items": table("items", whole),
        "item_tokens": table("item_tokens", positions),
        "tasks": pa.Table.from_pylist(scores, schema=records.TASKS),
    }


def _items(
    random: np.random.Generator,
    task: str,
    metric: str,
    right: float,
    count: int,
    damage: float,
    name: Naming,
) -> pd.DataFrame:
    """The items of one task; the first right ones break, the first wrong ones mend."""
    known = np.arange(count) < right * count
    broken, mended = round(count * (0.02 + 0.05 * damage)), round(count * 0.02)
    kept = known.copy()
    kept[:broken] = False
    kept[count - mended :] = True
    confidence = np.where(known, 0.7, 0.4) + 0.2 * random.random(count)
    return pd.DataFrame(
        {
            "task": name(task),
            "doc_id": np.arange(count),
            "cluster": [str(k) for k in range(count)],
            "metric": name(metric),
            "score_ref": known.astype(float),
            "score_cand": kept.astype(float),
            "binary": True,
            "prompt_hash": [f"p{k}" for k in range(count)],
            "target_hash": [f"t{k}" for k in range(count)],
            "conf_ref": confidence,
            "conf_cand": np.clip(confidence + 0.1 * damage, 0.01, 0.99),
            "correct_ref": known,
            "correct_cand": kept,
            "prompt": name("Question: Which of these gases do plants take in?\nAnswer:"),
            "target": name("carbon dioxide"),
            "answer_ref": name("carbon dioxide"),
            "answer_cand": name("oxygen"),
        }
    )


def _score(
    task: str, metric: str, reference: float | None, candidate: float | None, name: Naming
) -> dict[str, Any]:
    return {
        "task": name(task),
        "metric": name(metric),
        "reference": reference,
        "candidate": candidate,
        "higher_is_better": True,
        "num_fewshot": 0,
    }
