"""One request is one list of ids on both sides, whatever the candidate's tokenizer would make."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evalharness.pair.tasks.run import run_tasks
from tests.conftest import tiny_tokenizer
from tests.pair.tasks.lm_sides import prepare, run, side
from tests.pair.tasks.test_lm_eval_scores import plain_lm_eval


def having(loaded: Any, tokenizer: Any) -> Any:
    """A side with another tokenizer."""
    return SimpleNamespace(**(vars(loaded) | {"tokenizer": tokenizer}))


@pytest.mark.parametrize(
    ("name", "bos"),
    [
        ("finish", (False, True)),
        ("finish", (True, False)),
        ("read", (True, False)),
        ("write", (False, True)),
    ],
    ids=str,
)
def test_both_sides_are_asked_in_the_references_tokens(
    pair: tuple[Any, Any], name: str, bos: tuple[bool, bool]
) -> None:
    """Scores are lm-eval's with the reference's tokenizer, and the difference is an anomaly."""
    ours, own = (tiny_tokenizer(bos=b) for b in bos)
    reference, candidate = having(pair[0], ours), having(pair[1], own)
    (task,) = run(reference, candidate, f"{name}.yaml")
    for key, loaded in (("reference", reference), ("candidate", having(candidate, ours))):
        expected = plain_lm_eval(loaded, name, 2)["results"][name]
        for result in task.scores:
            label = result.metric if "," in result.metric else f"{result.metric},none"
            assert getattr(result, key) == pytest.approx(expected[label], rel=1e-5)
    (said,) = task.anomalies
    assert said.startswith(f"task {name}: by the tokenizer of tiny1, which is not that of tiny0, ")
    assert "become other tokens (in the first " in said
    assert ("'<eos>' and not" if bos[1] else "and not '<eos>' is token 1") in said
    assert "Both sides were asked in the tokens of tiny0. Mend that tokenizer" in said
    assert "set `tokenizers: different` in the suite" in said


def test_the_divergence_is_of_what_the_candidate_was_scored_on(pair: tuple[Any, Any]) -> None:
    """The same weights on the same ids: 0, though the candidate alone would add a BOS."""
    same = having(pair[0], tiny_tokenizer(bos=True))
    (task,) = run(pair[0], same, "choose.yaml")
    assert len(task.positions)
    assert (task.positions["kl"] == 0).all()
    assert task.frame["score_ref"].equals(task.frame["score_cand"].rename("score_ref"))
    assert len(task.anomalies) == 1


def test_each_in_its_own_tokens_where_the_suite_says_so(pair: tuple[Any, Any]) -> None:
    """Scores are lm-eval's of each side with its own tokenizer, without divergence."""
    candidate = having(pair[1], tiny_tokenizer(bos=True))
    (task,) = run_tasks(pair[0], candidate, prepare("finish.yaml"), batch_size=2, same_tokens=False)
    for key, loaded in (("reference", pair[0]), ("candidate", candidate)):
        expected = plain_lm_eval(loaded, "finish", 2)["results"]["finish"]
        for result in task.scores:
            found = expected[f"{result.metric},none"]
            assert getattr(result, key) == pytest.approx(found, rel=1e-5)
    assert task.anomalies == ()
    assert task.positions.empty


def test_another_build_that_makes_the_same_tokens_is_no_anomaly(pair: tuple[Any, Any]) -> None:
    """Its file differs in what none of these texts meets."""
    from tokenizers import AddedToken

    own = tiny_tokenizer()
    own.backend_tokenizer.add_special_tokens([AddedToken("~", special=True, lstrip=True)])
    candidate = having(pair[1], own)
    assert own.get_vocab() == pair[0].tokenizer.get_vocab()
    for task in run(pair[0], candidate, "finish.yaml", "read.yaml", "write.yaml"):
        assert task.anomalies == ()


def test_tokens_that_requests_take_beside_their_texts_are_compared(
    tiny: Callable[..., Path],
) -> None:
    """What stands before a text of its own, and what ends an answer."""
    reference = side(tiny, 0)
    own = copy.deepcopy(reference.tokenizer)
    own.add_special_tokens({"eos_token": "~"})
    candidate = having(side(tiny, 1), own)
    read, write = run(reference, candidate, "read.yaml", "write.yaml")
    assert "the token before what has no context is '~' and not '<eos>'" in read.anomalies[0]
    assert "the token that ends an answer is '~' and not '<eos>'" in write.anomalies[0]
    assert "other tokens (" not in read.anomalies[0] + write.anomalies[0]
    assert np.isfinite(read.frame["score_cand"]).all()
