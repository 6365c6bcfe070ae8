"""Scores are lm-eval's, of the candidate that was loaded."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalharness.errors import RunError
from evalharness.pair.tasks import packed_lm
from evalharness.pair.tasks.item_rows import Scored
from evalharness.pair.tasks.run import run_tasks
from tests.pair.tasks.lm_sides import TASKS, prepare, run, side

Tiny = Callable[..., Path]


def plain_lm_eval(loaded: Any, name: str, batch_size: int) -> Any:
    """What `simple_evaluate` gives with lm-eval's own model class, as its command runs it."""
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "add_env_info", lambda results: None)  # runs a dozen programs
        return evaluator.simple_evaluate(
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
        for result in task.scores:
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
    assert {r.metric: r.reference for r in task.scores} == {
        "acc": expected["acc,none"],
        "acc_norm": expected["acc_norm,none"],
    }


def test_a_quantised_head_is_scored_not_the_embedding_it_was_tied_to(tiny: Tiny) -> None:
    """HFLM ties weights again when it is built; the candidate's own head must survive."""
    import torch
    from lm_eval.models.huggingface import HFLM

    from evalharness.pair.tasks.hflm import PlainLM

    reference = side(tiny, 0, tie_word_embeddings=True)
    candidate = side(tiny, 0, tie_word_embeddings=True, name="changed")
    model = candidate.model
    head = torch.nn.Parameter(model.lm_head.weight.detach() + 0.25 * torch.randn(300, 32))
    model.lm_head.weight = head
    before = head.detach().clone()

    lm = PlainLM(candidate, batch_size=2, max_length=64, answered=lambda n: None)
    assert lm.model.lm_head.weight is head
    assert torch.equal(lm.model.lm_head.weight, before)
    assert "tie_weights" not in vars(model)
    (task,) = run(reference, candidate, "choose.yaml")
    brier = {r.metric: r for r in task.scores}["brier_score"]
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
