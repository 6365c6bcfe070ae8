"""Prompts in a chat template, with a system message: lm-eval's own, on both sides."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from evalharness.data.items import PreparedTasks, prepare_tasks
from evalharness.pair.compatible import check_pair
from evalharness.pair.side import Side
from evalharness.pair.tasks.run import run_tasks
from evalharness.spec.suite import Suite, Task
from tests.pair.tasks.lm_sides import TASKS

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE


@pytest.fixture
def asked(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    """Two sides, whose tokenizers have the same template."""
    for side in pair:
        side.tokenizer.chat_template = TEMPLATE
    return pair


def prepared(side: Any, name: str, **options: Any) -> PreparedTasks:
    task = Task(path=str(TASKS / f"{name}.yaml"), **options)
    return prepare_tasks((task,), seed=0, tokenizer=side.tokenizer)


def lm_evals(side: Any, name: str, **options: Any) -> Any:
    """What lm-eval's command computes with these options."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm = HFLM(pretrained=deepcopy(side.model), tokenizer=side.tokenizer, batch_size=2)
    return simple_evaluate(
        lm,
        tasks=[name],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        bootstrap_iters=0,
        **options,
    )


OPTIONS = [
    {"apply_chat_template": True},
    {"apply_chat_template": True, "num_fewshot": 2, "system": "Answer in\nbrief. "},
    {"apply_chat_template": True, "num_fewshot": 2, "fewshot_as_multiturn": False},
    {"num_fewshot": 1, "system": "Answer in brief."},
]


@pytest.mark.parametrize(
    ("name", "options"), [*zip(("write", "choose", "finish", "choose"), OPTIONS, strict=True)]
)
def test_requests_and_scores_are_those_of_lm_eval(
    asked: tuple[Any, Any],
    name: str,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a template, with and without turns and a system message, and with that alone."""
    monkeypatch.chdir(TASKS)  # where lm-eval itself finds the task's relative data_files
    tasks = prepared(asked[0], name, **options)
    (run,) = run_tasks(*asked, tasks, batch_size=2)
    theirs = {
        "apply_chat_template": options.get("apply_chat_template", False),
        "system_instruction": options.get("system"),
        "num_fewshot": options.get("num_fewshot"),
        # the command's default, where nothing is said
        "fewshot_as_multiturn": options.get(
            "fewshot_as_multiturn", "apply_chat_template" in options
        ),
    }
    for key, side in zip(("reference", "candidate"), asked, strict=True):
        expected = lm_evals(side, name, **theirs)
        ours = [tuple(i.args) for i in tasks.tasks[0].task.instances]
        samples = {s["doc_id"]: s["arguments"] for s in expected["samples"][name]}
        assert ours == [request for requests in samples.values() for request in requests]
        assert ("<assistant>" in ours[0][0]) == theirs["apply_chat_template"]
        for score in run.scores:
            label = score.metric if "," in score.metric else f"{score.metric},none"
            found = expected["results"][name][label]
            assert getattr(score, key) == pytest.approx(found, rel=1e-5)


def test_both_sides_are_asked_in_the_references_template(asked: tuple[Any, Any]) -> None:
    """The candidate's own is another, and is not used."""
    asked[1].tokenizer.chat_template = "{{ messages[0].content }}"
    (run,) = run_tasks(*asked, prepared(asked[0], "choose", apply_chat_template=True), batch_size=2)
    assert run.frame["prompt"].str.endswith("<end>\n<assistant>").all()


def test_what_is_asked_is_part_of_what_was_measured(asked: tuple[Any, Any]) -> None:
    """Another template, system message or form of the examples is another measurement."""
    forms = [{}, *OPTIONS, {"apply_chat_template": True, "system": "Think."}]
    found = [prepared(asked[0], "choose", **o).tasks[0].identity for o in forms]
    asked[0].tokenizer.chat_template = TEMPLATE.replace("<end>", "<|end|>")
    found.append(prepared(asked[0], "choose", apply_chat_template=True).tasks[0].identity)
    assert len(set(found)) == len(found)


def test_a_named_template_is_the_one_that_is_rendered(asked: tuple[Any, Any]) -> None:
    """lm-eval renders the default one whatever the name."""
    asked[0].tokenizer.chat_template = {"default": TEMPLATE, "short": "{{ messages[-1].content }}!"}
    (task,) = prepared(asked[0], "choose", apply_chat_template="short").tasks
    assert task.task.instances[0].args[0].endswith("A:!")
    (task,) = prepared(asked[0], "choose", apply_chat_template=True).tasks
    assert task.task.instances[0].args[0].endswith("<assistant>")


@pytest.mark.parametrize("template", [NO_SYSTEM, "{{ messages[-1].content }}"])
def test_a_template_that_leaves_the_system_message_out_is_named(
    asked: tuple[Any, Any], template: str
) -> None:
    """Whether it refuses one, which lm-eval answers by leaving it out, or ignores it."""
    asked[0].tokenizer.chat_template = template
    tasks = prepared(asked[0], "choose", apply_chat_template=True, system="Be brief.")
    assert tasks.messages == (
        "task 'choose': the chat template does not take the system message 'Be brief.', which is "
        "in no prompt or not in all of them",
    )


def test_a_template_that_writes_the_date_is_named(asked: tuple[Any, Any]) -> None:
    """Its prompts, and so the run's identity, are of the day."""
    asked[0].tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + TEMPLATE
    tasks = prepared(asked[0], "choose", apply_chat_template=True)
    (said,) = tasks.messages
    assert "the chat template asks for today's date" in said
    assert prepared(asked[0], "choose").messages == ()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (TEMPLATE, []),
        (None, ["other has no chat template 'default': both sides are asked in the one of base"]),
        (
            NO_SYSTEM,
            [
                "the chat template 'default' of other is not that of base: both sides are asked in "
                "the one of base"
            ],
        ),
    ],
)
def test_a_candidate_with_another_template_is_named(
    side: Callable[..., Side], template: str | None, said: list[str]
) -> None:
    """The pair is measured on the reference's prompts."""
    from dataclasses import replace

    sides = [side(), side()]
    for one, name, text in zip(sides, ("base", "other"), (TEMPLATE, template), strict=True):
        one.loaded = replace(one.loaded, name=name)
        one.loaded.tokenizer.chat_template = text
    entry = {"path": str(TASKS / "choose.yaml"), "apply_chat_template": True}
    suite = Suite.model_validate({"name": "s", "tasks": [entry]})
    assert check_pair(*sides, suite) == said
    plain = suite.model_copy(update={"tasks": (Task(path=entry["path"]),)})
    assert check_pair(*sides, plain) == []


def test_special_tokens_that_a_template_may_write_are_compared(side: Callable[..., Side]) -> None:
    """The same template renders another text where bos_token is another."""
    sides = [side(), side()]
    for one in sides:
        one.loaded.tokenizer.chat_template = TEMPLATE
    sides[1].loaded.tokenizer.add_special_tokens({"eos_token": "!"})
    suite = Suite.model_validate(
        {"name": "s", "tasks": [{"name": "t", "apply_chat_template": True}]}
    )
    (said,) = check_pair(*sides, suite)
    assert "has other special tokens than" in said


def test_turns_without_a_template_are_refused() -> None:
    """As lm-eval's command does."""
    with pytest.raises(ValueError, match="fewshot_as_multiturn: true asks for apply_chat_template"):
        Task(name="t", fewshot_as_multiturn=True)
