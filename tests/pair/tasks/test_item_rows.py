"""Items of both sides, paired: rows, clusters, NaN."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pytest

from evalharness.errors import RunError
from evalharness.pair.tasks.item_rows import Scored, _merged, pair_samples
from evalharness.pair.tasks.run import run_tasks
from evalharness.run.records import ITEMS
from tests.pair.tasks.lm_sides import LOCAL, prepare, run


def test_the_frame_is_in_the_schema_of_the_records(pair: tuple[Any, Any]) -> None:
    """One row a document and metric, of every output type, that Parquet takes."""
    runs = {r.task: r for r in run(*pair, *LOCAL)}
    for task in runs.values():
        table = pa.Table.from_pandas(task.frame, schema=ITEMS, preserve_index=False)
        assert table.schema.equals(ITEMS)
        assert table.num_rows == len(task.frame)
    counts = {name: dict(r.frame.groupby("metric").size()) for name, r in runs.items()}
    assert counts == {
        "choose": {"acc": 5, "acc_norm": 5, "brier_score": 5},
        "write": {"exact_match,whole": 5, "exact_match,first-letter": 5},
        "read": {"bits_per_byte": 5},  # word_perplexity is no mean over documents
        "finish": {"acc": 5},  # nor is perplexity
    }
    assert [r.metric for r in runs["read"].scores] == ["word_perplexity", "bits_per_byte"]
    assert all(r.reference is not None for t in runs.values() for r in t.scores)


def test_binary_is_said_of_right_or_wrong_scores_only(pair: tuple[Any, Any]) -> None:
    """Accuracy is; a Brier score is not, whatever its values."""
    for task in run(*pair, *LOCAL):
        for metric, rows in task.frame.groupby("metric"):
            assert bool(rows["binary"].all()) == ("acc" in metric or "exact_match" in metric)
            assert rows["binary"].nunique() == 1


def test_items_that_share_a_passage_are_one_cluster(pair: tuple[Any, Any]) -> None:
    """The first two rows read the same passage; the others have their own."""
    (task,) = run(*pair, "choose.yaml")
    clusters = task.frame[task.frame["metric"] == "acc"]["cluster"].tolist()
    assert clusters[0] == clusters[1]
    assert len(set(clusters)) == 4
    assert clusters[0].startswith("passage:")


def test_items_that_ask_the_same_are_one_cluster_with_what_shares_their_passage() -> None:
    """The later ones join the first; a passage that one of them has brings the others."""
    ids = {i: str(i) for i in range(6)}
    assert _merged(ids, {}) == ids
    assert _merged(ids, {3: 1, 5: 1}) == ids | {1: "text:1", 3: "text:1", 5: "text:1"}
    passages = ids | {0: "passage:a", 1: "passage:a", 2: "passage:b", 3: "passage:b"}
    assert _merged(passages, {2: 1}) == ids | dict.fromkeys(range(4), "passage:a")
    assert _merged(passages, {2: 1, 5: 4}) == (
        dict.fromkeys(range(4), "passage:a") | dict.fromkeys((4, 5), "text:4")
    )
    assert len(set(_merged(passages, {2: 1, 4: 3}).values())) == 2  # all but item 5


def test_items_without_a_passage_are_their_own_cluster(pair: tuple[Any, Any]) -> None:
    """The document's id is the cluster, and the ids are those of the sample drawn."""
    prepared = prepare("mmlu_dev_cloze", limit=6)
    (task,) = run_tasks(*pair, prepared, batch_size=4)
    rows = task.frame[task.frame["metric"] == "acc"]
    assert tuple(rows["doc_id"]) == prepared.tasks[0].samples
    assert [str(d) for d in rows["doc_id"]] == rows["cluster"].tolist()
    documents = dict(enumerate(prepared.tasks[0].task.eval_docs))
    assert all(
        documents[d]["question"][-40:] in p
        for d, p in zip(rows["doc_id"], rows["prompt"], strict=True)
    )


class FakeTask:
    """What `pair_samples` asks of an lm-eval task, over two-choice items."""

    OUTPUT_TYPE = "multiple_choice"
    multiple_input = 0

    @staticmethod
    def get_config(key: str) -> Any:
        return None

    @staticmethod
    def aggregation() -> dict[str, Any]:
        return {"acc": lambda v: sum(v) / len(v)}

    @staticmethod
    def doc_to_choice(doc: dict[str, Any]) -> list[str]:
        return ["yes", "no, never"]

    @staticmethod
    def doc_to_target(doc: dict[str, Any]) -> int:
        return int(doc["gold"])


class FakePrepared:
    name = "fake"
    task = FakeTask()
    repeats: ClassVar[dict[int, int]] = {}


def sample(doc_id: int, gold: int, lls: tuple[float, float], **changes: Any) -> dict[str, Any]:
    picked = max((0, 1), key=lambda i: lls[i])
    return {
        "doc_id": doc_id,
        "filter": "none",
        "doc": {"gold": gold},
        "target": gold,
        "arguments": [(f"Q{doc_id}", " yes"), (f"Q{doc_id}", " no, never")],
        "resps": [[(lls[0], False)], [(lls[1], False)]],
        "filtered_resps": [(lls[0], False), (lls[1], False)],
        "metrics": ["acc"],
        "acc": float(picked == gold),
        "doc_hash": f"d{doc_id}",
        "prompt_hash": f"p{doc_id}",
        "target_hash": f"t{gold}",
    } | changes


def scored(name: str, *samples: dict[str, Any]) -> Scored:
    mean = sum(s["acc"] for s in samples) / len(samples)
    return Scored(name, {"acc,none": mean}, list(samples))


def paired(reference: Scored, candidate: Scored) -> Any:
    return pair_samples(FakePrepared(), reference, candidate)  # type: ignore[arg-type]


REFERENCE = scored("ref", sample(3, 0, (-1.0, -2.0)), sample(8, 1, (-1.0, -3.0)))
CANDIDATE = scored("cand", sample(3, 0, (-2.0, -1.0)), sample(8, 1, (-4.0, -1.0)))


def test_a_row_holds_both_scores_and_the_confidence_of_each_choice() -> None:
    """By hand: softmax(−1, −2) gives the chosen answer 1/(1 + e⁻¹)."""
    frame = paired(REFERENCE, CANDIDATE).frame
    assert frame["doc_id"].tolist() == [3, 8]
    assert frame["score_ref"].tolist() == [1.0, 0.0]
    assert frame["score_cand"].tolist() == [0.0, 1.0]
    assert frame["correct_ref"].tolist() == [True, False]
    assert frame["correct_cand"].tolist() == [False, True]
    assert frame["conf_ref"].tolist() == pytest.approx(
        [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))]
    )
    assert frame["conf_cand"].tolist() == pytest.approx(
        [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-3))]
    )
    assert frame["answer_ref"].tolist() == ["yes", "yes"]
    assert frame["answer_cand"].tolist() == ["no, never", "no, never"]
    assert frame["target"].tolist() == ["yes", "no, never"]
    assert frame["binary"].tolist() == [True, True]


def test_order_of_the_samples_does_not_matter() -> None:
    """Documents are paired by id, never by position."""
    reversed_candidate = Scored("cand", CANDIDATE.scores, CANDIDATE.samples[::-1])
    pd.testing.assert_frame_equal(
        paired(REFERENCE, reversed_candidate).frame, paired(REFERENCE, CANDIDATE).frame
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_hash": "other"}, "document 8: the two sides differ in prompt_hash ('p8' and"),
        ({"target_hash": "other"}, "document 8: the two sides differ in target_hash ('t1' and"),
        ({"doc_hash": "other"}, "document 8: the two sides differ in doc_hash ('d8' and"),
        ({"doc_id": 9}, "document 8 (filter none): answered by one side only"),
    ],
)
def test_sides_that_were_asked_different_things_are_not_paired(
    changes: dict[str, Any], message: str
) -> None:
    """The error names the task and the document."""
    other = scored("cand", CANDIDATE.samples[0], CANDIDATE.samples[1] | changes)
    with pytest.raises(RunError) as caught:
        paired(REFERENCE, other)
    assert str(caught.value).startswith(f"task fake, {message}")


def test_a_nan_is_an_anomaly_and_never_right_or_wrong() -> None:
    """argmax takes the NaN for the largest: lm-eval would score the item."""
    broken = scored("cand", CANDIDATE.samples[0], sample(8, 1, (-4.0, math.nan)))
    found = paired(REFERENCE, broken)
    assert found.anomalies == (
        "cand: NaN or infinite log-likelihood for 1 of 2 items of task fake, first document 8; "
        "the task has no score on this side",
    )
    assert found.frame["score_cand"].isna().tolist() == [False, True]
    assert found.frame["correct_cand"].isna().tolist() == [False, True]
    assert found.frame["conf_cand"].isna().tolist() == [False, True]
    assert found.frame["score_ref"].tolist() == [1.0, 0.0]
