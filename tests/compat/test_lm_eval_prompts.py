"""What is relied on of how lm-eval makes prompts."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from evalharness.compat import lm_eval
from evalharness.compat.lm_eval_prompts import Chat, build_requests
from tests.conftest import tiny_tokenizer
from tests.pair.tasks.lm_sides import TASKS

HISTORY = [{"role": "user", "content": "hello"}]


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Five questions, which are their own examples."""
    monkeypatch.chdir(TASKS)
    tasks, _ = lm_eval.TaskIndex(TASKS, own=False).load("choose")
    return tasks["choose"]


def test_a_prompt_is_made_once_a_document_of_turns_by_keyword(task: Any) -> None:
    """``fewshot_context`` and ``build_qa_turn``, which are the task's own again afterwards."""
    calls: list[str] = []
    make, turn = task.fewshot_context, task.build_qa_turn

    def counted_turn(**parts: Any) -> Any:
        calls.append("example" if parts.get("a") is not None else "item")
        assert {"q", "c"} <= set(parts)
        return turn(**parts)

    def counted_make(doc: Any, **options: Any) -> Any:
        calls.append("document")
        return make(doc, **options)

    lm_eval.set_fewshot(task, 2)
    task.fewshot_context, task.build_qa_turn = counted_make, counted_turn
    task.set_fewshot_seed(seed=1)
    task.build_all_requests(limit=3, samples=None, rank=0, world_size=1)
    assert calls == ["document", "example", "example", "item"] * 3
    del task.fewshot_context, task.build_qa_turn
    built = build_requests(task, [1, 3])
    assert (built.shown, built.repeats, len(built.requests)) == ((), {}, 6)
    assert not {"fewshot_context", "build_qa_turn"} & set(vars(task))


def test_its_model_renders_the_default_template_whatever_its_name() -> None:
    """``HFLM.apply_chat_template`` takes no name; ``chat_template_args`` can hold one."""
    from lm_eval.models.huggingface import HFLM

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"default": "d", "other": "{{ messages[0].content }}!"}
    lm: Any = SimpleNamespace(tokenizer=tokenizer, chat_template_args={})
    assert list(inspect.signature(HFLM.apply_chat_template).parameters) == [
        "self",
        "chat_history",
        "add_generation_prompt",
    ]
    assert HFLM.apply_chat_template(lm, HISTORY) == Chat(tokenizer, None)(HISTORY) == "d"
    assert Chat(tokenizer, "other")(HISTORY) == "hello!"


def test_prompts_to_be_continued_are_cut_on_the_left_by_one_method() -> None:
    """``tok_batch_encode``, which generation calls with the room that there is."""
    from lm_eval.models.huggingface import HFLM

    assert list(inspect.signature(HFLM.tok_batch_encode).parameters) == [
        "self",
        "strings",
        "padding_side",
        "left_truncate_len",
        "truncation",
    ]
    assert "left_truncate_len=max_ctx_len" in inspect.getsource(HFLM.generate_until)
