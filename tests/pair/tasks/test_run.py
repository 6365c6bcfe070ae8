"""Task scores on both sides: lm-eval's numbers, pairing, flips, NaN, resume, silence."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from evalharness.errors import RunError
from evalharness.metrics import Evidence
from evalharness.pair.tasks import packed_lm
from evalharness.pair.tasks.item_rows import Scored, pair_samples
from evalharness.pair.tasks.run import TaskRun, group_results, run_tasks
from evalharness.results.tasks import flipped
from evalharness.run.directory import InMemory
from evalharness.run.records import ITEMS
from evalharness.spec.result import TaskResult
from tests.pair.tasks.lm_sides import TASKS, prepare, side

LOCAL = ("choose.yaml", "write.yaml", "read.yaml", "finish.yaml")
Tiny = Callable[..., Path]


@pytest.fixture
def pair(tiny: Tiny) -> tuple[Any, Any]:
    """Two different tiny models."""
    return side(tiny, 0), side(tiny, 1)


def flips(frame: pd.DataFrame) -> list[Any]:
    """The items whose correctness changed, as a result shows them."""
    table = pa.Table.from_pandas(frame, schema=ITEMS, preserve_index=False)
    return flipped(Evidence(InMemory({}, {"items": table})))


def run(reference: Any, candidate: Any, *names: str, **options: Any) -> list[TaskRun]:
    return list(run_tasks(reference, candidate, prepare(*names, **options), batch_size=2))


# -- the scores are lm-eval's


def plain_lm_eval(loaded: Any, name: str, batch_size: int) -> Any:
    """What `simple_evaluate` gives with lm-eval's own model class, as its command runs it."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    return simple_evaluate(
        HFLM(
            pretrained=copy.deepcopy(loaded.model),
            tokenizer=loaded.tokenizer,
            batch_size=batch_size,
        ),
        tasks=[name],
        task_manager=manager,
        bootstrap_iters=0,
    )


@pytest.mark.parametrize("name", ["write", "read", "finish"])
def test_scores_are_those_of_lm_eval(pair: tuple[Any, Any], name: str) -> None:
    """Every output type; generation to the last digit, log-likelihoods to float32's rounding."""
    (task,) = run(*pair, f"{name}.yaml")
    for key, loaded in zip(("reference", "candidate"), pair, strict=True):
        expected = plain_lm_eval(loaded, name, 2)["results"][name]
        for result in task.results:
            label = result.metric if "," in result.metric else f"{result.metric},none"
            close = 0.0 if name == "write" else 1e-5
            assert getattr(result, key) == pytest.approx(expected[label], rel=close, abs=0.0)


def test_log_likelihoods_are_those_of_lm_eval(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Multiple choice, by the items' own log-likelihoods rather than by their mean correctness."""
    monkeypatch.chdir(TASKS)  # where lm-eval itself finds the task's relative data_files
    seen: list[Scored] = []
    import evalharness.pair.tasks.run as module

    real = module.pair_samples
    monkeypatch.setattr(
        module, "pair_samples", lambda t, a, b: (seen.extend((a, b)), real(t, a, b))[1]
    )
    run(*pair, "choose.yaml")
    for scored, loaded in zip(seen, pair, strict=True):
        expected = plain_lm_eval(loaded, "choose", 2)
        for ours, theirs in zip(scored.samples, expected["samples"]["choose"], strict=True):
            for ((a, b),), ((c, d),) in zip(ours["resps"], theirs["resps"], strict=True):
                assert (a, b) == (pytest.approx(c, abs=1e-4), d)
            assert (ours["acc"], ours["acc_norm"]) == (theirs["acc"], theirs["acc_norm"])
        for metric in ("acc,none", "acc_norm,none"):
            assert scored.scores[metric] == expected["results"]["choose"][metric]
        assert scored.scores["brier_score,none"] == pytest.approx(
            expected["results"]["choose"]["brier_score,none"], rel=1e-5
        )


@pytest.mark.e2e
def test_scores_are_those_of_the_lm_eval_command(tiny: Tiny, tmp_path: Path) -> None:
    """The shipped task with two examples, run by ``python -m lm_eval`` on the saved model."""
    loaded = side(tiny, 0, max_position_embeddings=8192)
    from evalharness.data.task_names import SHIPPED

    prepared = prepare("mmlu_dev_cloze", num_fewshot=2, limit=20)
    samples = json.dumps({"mmlu_dev_cloze": prepared.tasks[0].samples})
    subprocess.run(
        [
            sys.executable,
            "-m",
            "lm_eval",
            "run",
            "--model",
            "hf",
            "--model_args",
            f"pretrained={loaded.path},dtype=float32",
            "--tasks",
            "mmlu_dev_cloze",
            "--num_fewshot",
            "2",
            "--samples",
            samples,
            "--include_path",
            str(SHIPPED),
            "--batch_size",
            "4",
            "--device",
            "cpu",
            "--output_path",
            str(tmp_path / "out"),
            "--log_samples",
        ],
        check=True,
        capture_output=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    (file,) = (tmp_path / "out").rglob("results_*.json")
    expected = json.loads(file.read_text())["results"]["mmlu_dev_cloze"]
    (task,) = run_tasks(loaded, loaded, prepared, batch_size=4)
    assert {r.metric: r.reference for r in task.results} == {
        "acc": expected["acc,none"],
        "acc_norm": expected["acc_norm,none"],
    }


def test_a_quantised_head_is_scored_not_the_embedding_it_was_tied_to(tiny: Tiny) -> None:
    """HFLM ties weights again when it is built; the candidate's own head must survive."""
    import torch
    from lm_eval.models.huggingface import HFLM

    from evalharness.pair.tasks.hflm import LoadedLM

    reference = side(tiny, 0, tie_word_embeddings=True)
    candidate = side(tiny, 0, tie_word_embeddings=True, name="changed")
    model = candidate.model
    head = torch.nn.Parameter(model.lm_head.weight.detach() + 0.25 * torch.randn(300, 32))
    model.lm_head.weight = head
    before = head.detach().clone()

    lm = LoadedLM(candidate, batch_size=2, max_length=64, answered=lambda n: None)
    assert lm.model.lm_head.weight is head
    assert torch.equal(lm.model.lm_head.weight, before)
    assert "tie_weights" not in vars(model)
    (task,) = run(reference, candidate, "choose.yaml")
    brier = {r.metric: r for r in task.results}["brier_score"]
    assert brier.reference != brier.candidate

    HFLM(pretrained=model, tokenizer=candidate.tokenizer)  # what lm-eval itself does
    assert not torch.equal(model.lm_head.weight, before)


@pytest.mark.parametrize("packed", [True, False])
def test_an_answer_longer_than_the_context_is_named(
    tiny: Tiny, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval asserts, without a word; a context that is too long is cut, as it does."""
    if not packed:
        monkeypatch.setattr(packed_lm, "unsupported", lambda side: "says the test")
    short = [side(tiny, seed, max_position_embeddings=4) for seed in (0, 1)]
    with pytest.raises(
        RunError, match=r"task choose on .*: an answer of \d+ tokens is longer than"
    ):
        run(*short, "choose.yaml")


# -- the rows


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
    assert [r.metric for r in runs["read"].results] == ["word_perplexity", "bits_per_byte"]
    assert all(r.reference is not None for t in runs.values() for r in t.results)


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


# -- hand-checked pairing


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


# -- whole runs


def test_a_model_against_itself_shows_no_difference(pair: tuple[Any, Any]) -> None:
    """Every output type: equal scores, no flips."""
    for task in run(pair[0], pair[0], *LOCAL):
        assert task.frame["score_ref"].equals(task.frame["score_cand"].rename("score_ref"))
        assert task.frame["conf_ref"].equals(task.frame["conf_cand"].rename("conf_ref"))
        assert flips(task.frame) == []
        assert all(r.reference == r.candidate for r in task.results)


def test_swapping_the_sides_swaps_every_number(pair: tuple[Any, Any]) -> None:
    """Reference and candidate are treated alike."""
    a, b = pair
    for one, other in zip(run(a, b, *LOCAL), run(b, a, *LOCAL), strict=True):
        np.testing.assert_allclose(one.frame["score_ref"], other.frame["score_cand"], rtol=1e-5)
        np.testing.assert_allclose(one.frame["score_cand"], other.frame["score_ref"], rtol=1e-5)
        for x, y in zip(one.results, other.results, strict=True):
            assert (x.reference, x.candidate) == pytest.approx((y.candidate, y.reference), rel=1e-5)
            assert (x.right_to_wrong, x.wrong_to_right) == (y.wrong_to_right, y.right_to_wrong)


@pytest.mark.parametrize("name", ["choose.yaml", "read.yaml", "finish.yaml", "write.yaml"])
def test_a_broken_candidate_is_an_anomaly_with_no_score(pair: tuple[Any, Any], name: str) -> None:
    """NaN weights: in every output type, generation too."""
    import torch

    reference, candidate = pair
    with torch.no_grad():
        candidate.model.lm_head.weight[7] = math.nan
    (task,) = run(reference, candidate, name)
    assert len(task.anomalies) == 1
    assert task.anomalies[0].startswith("tiny1: NaN or infinite log")
    assert all(r.candidate is None and r.reference is not None for r in task.results)
    assert task.frame["score_cand"].isna().all()
    assert task.frame["score_ref"].notna().all()
    assert flips(task.frame) == []


def test_tasks_that_are_done_are_left_out(pair: tuple[Any, Any]) -> None:
    """A resumed run does the rest, and yields each task as it ends."""
    prepared = prepare(*LOCAL)
    runs = run_tasks(*pair, prepared, batch_size=2, done={"choose", "read"})
    assert next(runs).task == "write"
    assert [r.task for r in runs] == ["finish"]


def test_results_do_not_depend_on_what_ran_before(pair: tuple[Any, Any]) -> None:
    """Nothing is carried from one task, or one run, to the next."""
    prepared = prepare(*LOCAL)
    first = {r.task: r.frame for r in run_tasks(*pair, prepared, batch_size=2)}
    again = {r.task: r.frame for r in run_tasks(*pair, prepared, batch_size=2, done={"choose"})}
    for name, frame in again.items():
        pd.testing.assert_frame_equal(frame, first[name])


def test_progress_counts_every_request_of_both_sides(
    pair: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """From 0 to all; the callback's own output reaches the terminal, lm-eval's does not."""
    prepared = prepare(*LOCAL)
    seen: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, label: str) -> None:
        seen.append((done, total, label))
        if done == total:
            print("all done", file=sys.stderr)

    list(run_tasks(*pair, prepared, batch_size=2, progress=progress))
    counts = [d for d, _, _ in seen]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 2 * prepared.requests)
    assert {t for _, t, _ in seen} == {2 * prepared.requests}
    assert seen[0][2] == "choose, tiny0"
    assert capsys.readouterr() == ("", "all done\n")


@pytest.mark.parametrize(
    ("tokens", "where"),
    [(20, "task choose on tiny0 and tiny1"), (0, "trying whether tasks can be packed")],
)
def test_a_failing_model_is_one_message(pair: tuple[Any, Any], tokens: int, where: str) -> None:
    """Both models are at work then; the message names the task, or the trial before it."""
    reference, candidate = pair
    real = candidate.model.model.forward

    def fail(*args: Any, input_ids: Any, **options: Any) -> Any:
        if input_ids.shape[1] > tokens:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(*args, input_ids=input_ids, **options)

    candidate.model.model.forward = fail
    with pytest.raises(RunError) as caught:
        run(reference, candidate, "choose.yaml")
    assert str(caught.value) == (
        f"{where}: not enough memory (CUDA out of memory. Tried to allocate 2.00 GiB). "
        "Use a smaller batch_size"
    )


def test_a_group_has_lm_evals_aggregate_of_its_leaves(pair: tuple[Any, Any]) -> None:
    """Weighted by size, from the leaves' results alone, so that a resumed run has it too."""
    prepared = prepare("both.yaml", limit=4)
    results = [r for t in run_tasks(*pair, prepared, batch_size=2) for r in t.results]
    acc = {r.task: r for r in results if r.metric == "acc"}
    (group,) = group_results(prepared, results)
    assert (group.task, group.metric, group.items) == ("both", "acc", 8)
    assert group.reference == (acc["choose"].reference + acc["finish"].reference) / 2
    assert group.right_to_wrong is None

    undefined = [r.model_copy(update={"candidate": None}) for r in results]
    (group,) = group_results(prepared, undefined)
    assert group.candidate is None
    assert group_results(prepared, [r for r in results if r.task == "choose"]) == ()


def test_results_of_leaves_are_task_results(pair: tuple[Any, Any]) -> None:
    """Counts of flips are those of the frame."""
    for task in run(*pair, "choose.yaml", "finish.yaml"):
        for result in task.results:
            assert isinstance(result, TaskResult)
            rows = task.frame[task.frame["metric"] == result.metric]
            if result.right_to_wrong is not None:
                assert (
                    result.right_to_wrong == ((rows.score_ref == 1) & (rows.score_cand == 0)).sum()
                )
                assert (
                    result.wrong_to_right == ((rows.score_ref == 0) & (rows.score_cand == 1)).sum()
                )


def test_a_task_that_speaks_of_memory_is_not_taken_for_one_that_ran_out(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own message stands: a smaller batch would not help."""
    task = prepare("choose.yaml").tasks[0].task

    def fails(self: Any, doc: Any, results: Any) -> Any:
        raise KeyError("memory_palace")

    monkeypatch.setattr(type(task), "process_results", fails)
    with pytest.raises(RunError, match=r"KeyError: 'memory_palace'$"):
        run(*pair, "choose.yaml")
